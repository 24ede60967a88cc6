package policy

import "testing"

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
		{">=1", "2.0rc1", true}, // a pre-release counts when it is installed already
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
