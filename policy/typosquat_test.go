package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

//go:embed testdata/squats.txt
var squatsText string

// byRank returns the popular names, the most popular first.
func byRank() []string {
	names := make([]string, len(popular()))
	for name, rank := range popular() {
		names[rank] = name
	}
	return names
}

// indexOf builds the tables for names, which are in the order of their ranks.
func indexOf(names []string) *squats {
	ranks := make(map[string]int, len(names))
	for rank, name := range names {
		ranks[name] = rank
	}
	return newSquats(ranks)
}

func TestPopularNamesPass(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{})
	for _, name := range byRank() {
		d := p.Check(Requirement{Name: name})
		if _, found := stdlibNames()[name]; found || installers[name] {
			continue
		}
		if !d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// When the tables have only the most popular names, few of the real packages further down the list are reported as squats. Most
// of these do resemble a popular one, as "beautifulsoup" does "beautifulsoup4". With the whole list, they are exempt.
func TestFalseAlarms(t *testing.T) {
	t.Parallel()
	names := byRank()
	for _, test := range []struct {
		known    int
		from, to int
		percent  float64
	}{
		{2000, 3000, 8000, 1.5},
		{2000, 8000, 15000, 1.2},
		{8000, 8000, 15000, 1.5},
	} {
		index := indexOf(names[:test.known])
		var flagged []string
		for _, name := range names[test.from:test.to] {
			if target := index.find(name); target != "" {
				flagged = append(flagged, name+"~"+target)
			}
		}
		percent := 100 * float64(len(flagged)) / float64(test.to-test.from)
		t.Logf("%d known, ranks %d to %d: %.2f %% flagged", test.known, test.from, test.to, percent)
		if percent > test.percent {
			t.Errorf("%d known, ranks %d to %d: %.2f %% flagged, want at most %.2f: %s",
				test.known, test.from, test.to, percent, test.percent, flagged)
		}
	}
}

func TestKnownSquats(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{})
	count := 0
	for line := range strings.Lines(squatsText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		count++
		words := strings.Fields(line)
		// The spelling alone must suffice, without the list of malicious names.
		if got := popularSquats().find(words[0]); got != words[1] {
			t.Errorf("%s resembles %q, want %q", words[0], got, words[1])
		}
		d := p.Check(Requirement{Name: words[0]})
		checkDecision(t, d)
		if d.Allowed || d.Resembles != words[1] {
			t.Errorf("%s: %+v", words[0], d)
		}
	}
	if count < 70 { // TestConstructedSquats tries many more
		t.Errorf("%d squats, want 70 or more", count)
	}
}

// Each way of imitation is tried on those of the 100 most popular names that are long enough for it.
func TestConstructedSquats(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	// at picks an index in a name, not 0, with a character other than "-".
	at := func(name string) int {
		for {
			if i := 1 + random.IntN(len(name)-1); name[i] != '-' {
				return i
			}
		}
	}
	ways := map[string]struct {
		shortest int
		imitate  func(name string) []string
		caught   float64
	}{
		"repeated": {5, func(n string) []string { i := at(n); return []string{n[:i] + n[i:i+1] + n[i:]} }, 0.97},
		"dropped":  {5, func(n string) []string { i := at(n); return []string{n[:i] + n[i+1:]} }, 0.9},
		"swapped": {5, func(n string) []string {
			i := at(n)
			return []string{n[:i-1] + n[i:i+1] + n[i-1:i] + n[i+1:]}
		}, 0.97},
		"neighbour": {6, func(n string) []string {
			i := at(n)
			for c := byte('a'); c <= 'z'; c++ {
				if isNeighbour(c, n[i]) {
					return []string{n[:i] + string(c) + n[i+1:]}
				}
			}
			return nil
		}, 0.8}, // some replaced digits, and slips in words of two or three letters, are not reported
		"added letter":      {6, func(n string) []string { i := at(n); return []string{n[:i] + "x" + n[i:]} }, 0.85},
		"separator added":   {5, func(n string) []string { i := at(n); return []string{n[:i] + "-" + n[i:]} }, 1},
		"separator dropped": {5, func(n string) []string { return without(n, strings.ReplaceAll(n, "-", "")) }, 1},
		"separator moved": {5, func(n string) []string {
			i := strings.IndexByte(n, '-')
			if i < 2 {
				return nil
			}
			return []string{n[:i-1] + "-" + n[i-1:i] + n[i+1:]}
		}, 1},
		"words swapped": {5, func(n string) []string {
			a, b, _ := strings.Cut(n, "-")
			if b == "" {
				return nil
			}
			return []string{b + "-" + a}
		}, 1},
		"look-alikes": {5, func(n string) []string {
			return without(n, strings.ReplaceAll(n, "l", "1"), strings.ReplaceAll(n, "o", "0"),
				strings.ReplaceAll(n, "m", "rn"), strings.ReplaceAll(n, "w", "vv"), strings.ReplaceAll(n, "i", "l"))
		}, 1},
		"python-":  {4, func(n string) []string { return []string{"python-" + n, "python3-" + n, "py-" + n} }, 1},
		"-python":  {4, func(n string) []string { return []string{n + "-python", n + "-py", n + "-python3"} }, 1},
		"py":       {5, func(n string) []string { return []string{"py" + n, n + "py", "python" + n, n + "python"} }, 1},
		"versions": {5, func(n string) []string { return []string{n + "2", n + "3", n + "-3", n + "-v2"} }, 0.9},
		"an affix and a slip": {7, func(n string) []string {
			i := at(n)
			return []string{"python-" + n[:i] + n[i:i+1] + n[i:]}
		}, 0.9},
		"two slips": {10, func(n string) []string {
			i := at(n)
			n = n[:i] + n[i:i+1] + n[i:]
			i = at(n)
			return []string{n[:i] + n[i+1:]}
		}, 0.75},
	}
	total := 0
	for _, way := range slices.Sorted(maps.Keys(ways)) {
		w := ways[way]
		tried, caught := 0, 0
		var missed []string
		for _, name := range byRank()[:100] {
			if len(compact(name)) < w.shortest {
				continue
			}
			for _, squat := range w.imitate(name) {
				if squat = Canonical(squat); squat == name || !isName(squat) || isPopular(squat) {
					continue
				}
				tried++
				// The name found may be another than the one that the squat was made from: awscli and aws-cli are that close.
				if popularSquats().find(squat) != "" {
					caught++
				} else {
					missed = append(missed, fmt.Sprintf("%s~%s", squat, name))
				}
			}
		}
		total += caught
		t.Logf("%s: %d of %d", way, caught, tried)
		if tried == 0 || float64(caught) < w.caught*float64(tried) {
			t.Errorf("%s: %d of %d caught, want %.0f %%; missed %s", way, caught, tried, 100*w.caught, missed)
		}
	}
	if total < 200 {
		t.Errorf("%d squats caught, want 200 or more", total)
	}
}

func without(name string, squats ...string) []string {
	return slices.DeleteFunc(squats, func(s string) bool { return s == name })
}

// These names are close to a popular one, but honest, or too short to tell.
func TestNotSquats(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"abc", "xyz", "foo", "tqm", "pti", // three letters
		"my-company-tools", "acme-billing-client", "internal-requests-wrapper",
		"mypy-boto3-xyz", "types-somethingelse", "nvidia-cublas-cu19", "google-cloud-nonesuch",
		"django-my-own-app", "pytest-my-own-plugin", "flask-my-own-thing",
	} {
		if target := popularSquats().find(name); target != "" {
			t.Errorf("%s is taken for a squat of %s", name, target)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"requests", "panddas", "some-package-that-resembles-nothing", "somethingoftwentyfour123"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Check(Requirement{Name: name})
			}
		})
	}
}

func BenchmarkBuildIndex(b *testing.B) {
	popular()
	b.ReportAllocs()
	for b.Loop() {
		newSquats(popular())
	}
}
