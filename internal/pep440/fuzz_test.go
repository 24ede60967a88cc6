package pep440

import "testing"

func FuzzMatch(f *testing.F) {
	for _, specifier := range []string{">=2,<3", "==1.*", "!=1.0", "~=1.4.5a4", "===x", ">1.0.post1", "<1.0rc1", "==1!0.*", "1.0+abc"} {
		for _, version := range []string{"1.0", "1", "2.0rc1", "1!0.5", "1.0+abc.1", "x", "", "1.0.post1.dev2"} {
			f.Add(specifier, version)
		}
	}
	f.Fuzz(func(t *testing.T, text, version string) {
		if set, err := ParseSpecifier(text); err == nil {
			matches := set.Match(version)
			again, err := ParseSpecifier(set.String())
			if err != nil || again.String() != set.String() || again.Match(version) != matches {
				t.Fatalf("%q is written as %q, which is %v, %v", text, set, again, err)
			}
		}
		if Equal(text, version) != Equal(version, text) || !Equal(version, version) {
			t.Fatalf("%q and %q, or %[2]q and itself", text, version)
		}
		exact, err := ParseSpecifier(version)
		if err != nil || !exact.Pinned() {
			return
		}
		if _, err := parse(version); err != nil {
			return // the text is a specifier with an operator, not a version
		}
		if !exact.Match(version) {
			t.Fatalf("%q does not satisfy %q", version, exact)
		}
		for operator, want := range map[string]bool{">=": true, "<=": true, "!=": false, ">": false, "<": false} {
			if set, err := ParseSpecifier(operator + version); err == nil && set.Match(version) != want {
				t.Fatalf("%q satisfies %q: %v", version, set, !want)
			}
		}
	})
}
