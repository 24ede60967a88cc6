package policy

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed testdata/pep440.txt
var pep440Cases string

// The reference is Python's packaging library, which pip uses.
func TestSpecifiersAgreeWithPackaging(t *testing.T) {
	t.Parallel()
	cases := 0
	for line := range strings.Lines(pep440Cases) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		cases++
		requirement, err := ParseRequirement("x", words[0])
		got := "no"
		if err != nil {
			got = "invalid"
		} else if requirement.Satisfied(words[1]) {
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

func TestSatisfied(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		version, installed string
		want               bool
	}{
		{"", "1.0", true},
		{"", "not a version", true},
		{"latest", "2.0rc1", true},
		{"2.0rc1", "2.0rc1", true},
		{"2.0rc1", "2.0.RC.1", true},
		{">=1", "2.0rc1", true}, // present already
		{"2.0", "2.0rc1", false},
		{"2.31.0", "2.31", true},
		{"2.31.0", "2.31.0+local", true},
		{"2.31.0+local", "2.31.0", false},
		{">=2,<3", "2.99", true},
		{">=2,<3", "3.0", false},
		{">=2,<3", "not a version", false},
		{"===weird", "WEIRD", true},
		{"===weird", "weird2", false},
		{"===1.0", "1.0", true},
		{"===1.0", "1.0.0", false},
		{"==1.*", "1", true},
		{"==1.*", "10", false},
	} {
		requirement, err := ParseRequirement("x", test.version)
		if err != nil {
			t.Fatal(err)
		}
		if got := requirement.Satisfied(test.installed); got != test.want {
			t.Errorf("%q satisfied by %q: %v, want %v", test.version, test.installed, got, test.want)
		}
	}
	if (Requirement{Name: "x", Specifier: "nonsense"}).Satisfied("1") {
		t.Error("a specifier that ParseRequirement never makes is satisfied")
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	// PEP 440, "Summary of permitted suffixes and relative ordering", with what is not a version in front.
	ascending := []string{
		"", "garbage", "1.dev0", "1.0.dev456", "1.0a1", "1.0a2.dev456", "1.0a12.dev456", "1.0a12", "1.0b1.dev456", "1.0b2",
		"1.0b2.post345.dev456", "1.0b2.post345", "1.0rc1.dev456", "1.0rc1", "1.0", "1.0+abc.5", "1.0+abc.7", "1.0+5",
		"1.0.post456.dev34", "1.0.post456", "1.0.15", "1.1.dev1", "1!0.1",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
	if CompareVersions("1.0+ubuntu-1", "1+Ubuntu.01") != 0 {
		t.Error("two spellings of one local version differ")
	}
}
