package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestListsAgreeWithEachOther(t *testing.T) {
	t.Parallel()
	for file, text := range map[string]string{"popular.txt": popularText, "malicious.txt": maliciousText} {
		seen := map[string]bool{}
		for line := range strings.Lines(text) {
			name := strings.TrimSuffix(line, "\n")
			if !isName(name) || Canonical(name) != name {
				t.Errorf("%s has %q, which is not a canonical name", file, name)
			}
			if seen[name] {
				t.Errorf("%s has %q twice", file, name)
			}
			seen[name] = true
		}
	}
	if n := len(popular()); n < 8000 {
		t.Errorf("popular.txt has %d names, want 8000 or more", n)
	}
	for name := range malicious() {
		if isPopular(name) {
			t.Errorf("%q is both malicious and popular: a compromised release makes no squat of a package", name)
		}
		if _, found := stdlibNames()[name]; found {
			t.Errorf("%q of malicious.txt is in the standard library, which has a rule of its own", name)
		}
	}
	if n := len(modules()); n < 150 {
		t.Errorf("modules.txt has %d entries, want 150 or more", n)
	}
	for module, distribution := range modules() {
		if Canonical(distribution) != distribution || !isName(distribution) {
			t.Errorf("modules.txt: %q of %q is not a canonical name", distribution, module)
		}
		if !isPopular(distribution) && stdlib()[module] == "" {
			t.Errorf("modules.txt: %q of %q is not popular: does it exist?", distribution, module)
		}
		if _, found := malicious()[distribution]; found {
			t.Errorf("modules.txt: %q of %q is malicious", distribution, module)
		}
	}
	for _, name := range seedBlock {
		if !IsStandardLibrary(name) {
			t.Errorf("the seed of the blocklist has %q, which is no module", name)
		}
	}
	for name := range backports {
		if _, found := stdlibNames()[name]; !found || slices.Contains(seedBlock, name) {
			t.Errorf("%q of the backports is no module, or blocked anyway", name)
		}
	}
}
