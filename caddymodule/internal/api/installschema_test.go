package api

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// The patterns of the document against the policy, which decides.
func TestInstallPatternsAreThePolicy(t *testing.T) {
	t.Parallel()
	const has, takes, both, neither = "has", "takes", "both", "neither" // the pattern has it; the policy takes it
	long := strings.Repeat("9", 14)
	longest := "9999!" + long + strings.Repeat("."+long, 5) + "rc" + long + ".post" + long + ".dev" + long + "+" + strings.Repeat("a", 12) + strings.Repeat("."+strings.Repeat("b", 11), 3)
	for _, c := range []struct {
		pattern string
		parse   func(string) error
		want    string
		texts   []string
	}{
		{packagePattern, func(s string) error { _, err := policy.ParseRequirement(s, ""); return err }, both, []string{
			"requests", "a", "A.b_c-d", "requests[socks]", "requests[socks, security]", "requests [ a , b-c ]", strings.Repeat("a", 128),
			strings.Repeat("a", 20) + "[" + strings.Repeat("b,", 80) + "b]", "zip", "a.zip[b]"}},
		{packagePattern, func(s string) error { _, err := policy.ParseRequirement(s, ""); return err }, neither, []string{
			"", "-r x", "_a", "a.", "a b", "a[", "a[]", "a[b,]", "a[-b]", "a/b", "../a", "https://a/b", "a @ https://a", "a; x", "a\n", "а", strings.Repeat("a", 129)}},
		{packagePattern, func(s string) error { _, err := policy.ParseRequirement(s, ""); return err }, takes, []string{
			" a ", "requests==2.31.0", "requests[socks]>=2,<3"}},
		{packagePattern, func(s string) error { _, err := policy.ParseRequirement(s, ""); return err }, has, []string{
			"a.zip", "a.whl", "a.tar.gz"}},
		{versionPattern, func(s string) error { _, err := policy.ParseRequirement("a", s); return err }, both, []string{
			"", "latest", "2.31.0", "1!2", "1.0a1", "1.0rc1.post2.dev3", "1.0+cu118", "1.0+local.1", "1.*", "==1.*", "!=1.0.*", "== 1.0+a", ">=2,<3", ">=2 , <3, !=2.5",
			"~=1.4", "~=1.4.5a4", ">1.0.post1", "===weird!*", longest, strings.Repeat(">1,", 60) + "<2"}},
		{versionPattern, func(s string) error { _, err := policy.ParseRequirement("a", s); return err }, neither, []string{
			"1.0 2.0", "1,2", ",", "=1", "^1", "~=1", ">1.*", ">1+a", "~=1.0+a", "==1.0a1.*", "1.0\n", "abc", "1.", ".1", ">=", ">=1;", "==1||==2", "=== a b"}},
		{versionPattern, func(s string) error { _, err := policy.ParseRequirement("a", s); return err }, takes, []string{
			" ", "Latest", "v1.0", "1.0-beta-1", "1.0RC1", ">=2,", "1.0-1"}},
	} {
		shape := regexp.MustCompile(c.pattern)
		for _, text := range c.texts {
			got := map[[2]bool]string{{true, true}: both, {true, false}: has, {false, true}: takes, {false, false}: neither}[[2]bool{shape.MatchString(text), c.parse(text) == nil}]
			if got != c.want {
				t.Errorf("%.60q: %s, not %s: %v", text, got, c.want, c.parse(text))
			}
		}
	}
	if len(longest) > 198 { // "==" comes before it
		t.Errorf("the longest version has %d characters", len(longest))
	}
}
