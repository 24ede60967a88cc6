package install

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

func TestNothingForADependency(t *testing.T) {
	t.Parallel()
	wheel := func(version, python string) packages.File {
		return packages.File{Version: version, Wheel: true, RequiresPython: python}
	}
	sdist := packages.File{Version: "1.5", Sdist: true}
	req := Request{Requirement: policy.Requirement{Name: "one", Extras: []string{"more"}}}
	for _, c := range []struct {
		parent string
		page   packages.Page
		status Status
		words  []string
	}{
		{"one[more]", packages.Page{}, NotFound, []string{"one[more] 2.0 needs two>=1, which the index does not have", "Ask for one alone"}},
		{"one[more]", packages.Page{Found: true, Files: []packages.File{sdist}}, NoWheel, []string{"source only", "Ask for one alone", "sdist allow"}},
		{"three", packages.Page{Found: true, Files: []packages.File{sdist}}, NoWheel, []string{"three 2.0 needs two>=1", "Ask for another version"}},
		{"one", packages.Page{Found: true, Files: []packages.File{wheel("1.1", ""), sdist}}, NoWheel, []string{"other systems", "3.11.7"}},
		{"one", packages.Page{Found: true, Files: []packages.File{wheel("0.9", ""), sdist}}, NoWheel, []string{"source only"}},
		{"one", packages.Page{Found: true, Files: []packages.File{wheel("1.1", ">=3.13")}}, Conflict, []string{"needs Python >=3.13, and this is Python 3.11.7"}},
		{"one", packages.Page{Found: true, Files: []packages.File{wheel("1.1", ">=3.5.*")}}, NoWheel, []string{"other systems"}},
		{"one", packages.Page{Found: true, Files: []packages.File{{Version: "1.1", Wheel: true, Yanked: true}}}, NotFound, []string{"withdrawn"}},
		{"one", packages.Page{Found: true, Files: []packages.File{wheel("0.9", "")}}, NotFound, []string{"no such version", "0.9"}},
	} {
		err := nothingForDependency(req, deadEnd{Name: "two", Specifier: ">=1", Needs: "two>=1", Parent: c.parent, ParentVersion: "2.0"}, c.page, "3.11.7")
		refused, ok := errors.AsType[*refusal](err)
		if !ok || refused.status != c.status {
			t.Errorf("%+v: got %v", c.page, err)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(refused.message, word) {
				t.Errorf("%q lacks %q", refused.message, word)
			}
		}
	}
}

func TestLongRequirementsAreCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for extra := range 4 {
		said := deadEnd{Needs: strings.Repeat("x", extra) + strings.Repeat("€", 100), Parent: "one", ParentVersion: "1"}.String()
		if !utf8.ValidString(said) || !strings.HasSuffix(said, "€...") {
			t.Errorf("got %q", said)
		}
	}
}
