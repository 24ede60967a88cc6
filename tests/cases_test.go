package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// runCase is a program that breaks products of this kind, and what must come of it.
type runCase struct {
	ID       string         `json:"id"`
	Why      string         `json:"why"`
	Request  map[string]any `json:"request"`
	Expect   map[string]any `json:"expect"`
	Repeat   int            `json:"repeat"`
	Parallel int            `json:"parallel"`
	Distinct bool           `json:"distinct"`
}

// Three rounds in a row, since what one run leaves behind shows in the next.
func TestExecuteCases(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("cases/execute.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []runCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	c := startCaddy(t, caddyOptions{})
	for round := range 3 {
		for _, rc := range cases {
			t.Run(fmt.Sprintf("%d/%s", round+1, rc.ID), func(t *testing.T) { tryCase(t, c, rc) })
		}
	}
}

func tryCase(t *testing.T, c *caddy, rc runCase) {
	width := max(1, rc.Parallel)
	answers := make([]answer, max(1, rc.Repeat, width))
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i := range answers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if answers[i], err = c.execute(t.Context(), rc.Request); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, a := range answers {
		seen[a.Stdout] = true
		wrong := faults(rc.Expect, a)
		for _, fault := range wrong {
			t.Errorf("%s (%s)", fault, rc.Why)
		}
		if len(wrong) > 0 && a.Stderr != "" {
			t.Logf("it wrote: %s", tail(a.Stderr, 1500))
		}
	}
	if rc.Distinct && len(seen) < len(answers) {
		t.Errorf("answers repeat: %d of %d differ", len(seen), len(answers))
	}
}

// faults lists how an answer falls short. A key of expect is a field, or a field with a suffix that says how to compare.
func faults(expect map[string]any, a answer) (bad []string) {
	if want, ok := expect["http"].(float64); ok && int(want) != a.code || !ok && a.code != 200 {
		return []string{fmt.Sprintf("http %d: %.300s", a.code, a.raw)}
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(a.raw), &got); err != nil {
		return []string{err.Error()}
	}
	text := func(key string) string { s, _ := got[key].(string); return s }
	for key, want := range expect {
		field, how := key, ""
		for _, suffix := range []string{"in", "contains", "matches", "excludes"} {
			if rest, ok := strings.CutSuffix(key, "_"+suffix); ok {
				field, how = rest, suffix
			}
		}
		switch {
		case key == "http":
		case key == "max_seconds":
			if limit := time.Duration(want.(float64) * float64(time.Second)); a.took > limit && a.took > stretched(limit, a.began) {
				bad = append(bad, fmt.Sprintf("took %s, more than %s", a.took, limit))
			}
		case how == "in":
			ok := false
			for _, w := range want.([]any) {
				ok = ok || reflect.DeepEqual(got[field], w)
			}
			if !ok {
				bad = append(bad, fmt.Sprintf("%s is %v, not one of %v", field, got[field], want))
			}
		case how == "contains":
			if !strings.Contains(text(field), want.(string)) {
				bad = append(bad, fmt.Sprintf("%s lacks %q: %q", field, want, tail(text(field), 160)))
			}
		case how == "matches":
			if !regexp.MustCompile(want.(string)).MatchString(text(field)) {
				bad = append(bad, fmt.Sprintf("%s does not match %q: %q", field, want, tail(text(field), 160)))
			}
		case how == "excludes":
			for _, w := range want.([]any) {
				if strings.Contains(text(field), w.(string)) {
					bad = append(bad, fmt.Sprintf("%s shows %q", field, w))
				}
			}
		default:
			if !reflect.DeepEqual(got[field], want) {
				bad = append(bad, fmt.Sprintf("%s is %.160v, not %.80v", field, got[field], want))
			}
		}
	}
	return bad
}
