package pep440

import (
	"cmp"
	"testing"
)

// The order is that of PEP 440, "Summary of permitted suffixes and relative ordering".
func TestOrder(t *testing.T) {
	t.Parallel()
	ascending := []string{
		"1.dev0", "1.0.dev456", "1.0a1", "1.0a2.dev456", "1.0a12.dev456", "1.0a12", "1.0b1.dev456", "1.0b2",
		"1.0b2.post345.dev456", "1.0b2.post345", "1.0rc1.dev456", "1.0rc1", "1.0", "1.0+abc.5", "1.0+abc.7", "1.0+5",
		"1.0.post456.dev34", "1.0.post456", "1.0.15", "1.1.dev1", "1!0.1",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			left, err := parse(a)
			if err != nil {
				t.Fatal(err)
			}
			right, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := left.Compare(right), cmp.Compare(i, j); got != want {
				t.Errorf("%q and %q compare as %d, want %d", a, b, got, want)
			}
			if Equal(a, b) != (i == j) {
				t.Errorf("Equal(%q, %q) is %v", a, b, i != j)
			}
		}
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for _, equal := range [][]string{
		{"1", "1.0", "1.0.0", "v1", " 1.0 ", "01.00"},
		{"1.0a1", "1.0.alpha-1", "1-a_1", "1.0ALPHA1"},
		{"1rc1", "1c1", "1.pre1", "1-preview-1"},
		{"10rc1", "10RC1"},
		{"1b0", "1beta", "1.0-b"},
		{"1.post1", "1-1", "1.rev1", "1r1"},
		{"1.dev0", "1dev", "1.0-dev"},
		{"1+ubuntu.1", "1+ubuntu-1", "1.0+Ubuntu_01"},
		{"1!1.0", "01!1"},
		{"2004d", "2004D"},
		{"x.y", "X-Y", "x_y"},
	} {
		for _, other := range equal[1:] {
			if !Equal(equal[0], other) || !Equal(other, equal[0]) {
				t.Errorf("%q and %q differ", equal[0], other)
			}
		}
	}
	different := []string{"1", "1.1", "1a1", "1b1", "1rc1", "1.post1", "1.dev1", "1+1", "1!1", "10", "1.0.1", "2004d", "", "x"}
	for i, a := range different {
		for _, b := range different[:i] {
			if Equal(a, b) {
				t.Errorf("%q and %q are equal", a, b)
			}
		}
	}
}
