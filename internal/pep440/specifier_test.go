package pep440

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed testdata/pep440.txt
var pep440Cases string

// The expected results are those of Python's packaging library, which pip uses.
func TestSpecifiersAgreeWithPackaging(t *testing.T) {
	t.Parallel()
	cases := 0
	for line := range strings.Lines(pep440Cases) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		cases++
		specifier, err := ParseSpecifier(words[0])
		got := "no"
		if err != nil {
			got = "invalid"
		} else if specifier.Match(words[1]) {
			got = "yes"
		}
		if got != words[2] {
			t.Errorf("%s with %s: %s, packaging says %s", words[0], words[1], got, words[2])
		}
	}
	if cases < 1000 {
		t.Errorf("%d cases, want 1000 or more", cases)
	}
}
