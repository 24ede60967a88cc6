package pool

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// layered is a program of ../tests/cases that prints BLOCKED.
type layered struct {
	ID        string `json:"id"`
	Guarantee string `json:"guarantee"`
	Request   struct {
		Code string `json:"code"`
	} `json:"request"`
	Expect map[string]any `json:"expect"`
	Repeat int            `json:"repeat"`
}

// What the table says without a layer holds without it. Alone, since bombs and floods would be felt by the tests beside it.
func TestGuaranteesHoldWithOneLayerLess(t *testing.T) {
	var cases []layered
	for _, name := range []string{"escape", "escape-more"} {
		text, err := os.ReadFile("../tests/cases/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var more []layered
		if err := json.Unmarshal(text, &more); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, more...)
	}
	whole := thisSystem()
	if whole.landlock == 0 || !whole.seccomp {
		skipWithoutLayer(t, "Landlock and seccomp")
	}
	for name, take := range map[string]func(*system){
		"no Landlock": func(s *system) { s.landlock = 0 },
		"no seccomp":  func(s *system) { s.seccomp = false },
	} {
		t.Run(name, func(t *testing.T) {
			sys := whole
			take(&sys)
			python, err := testPython()
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPool(t.Context(), Config{Python: python.Executable, Isolation: IsolationBestEffort, Logger: slog.New(slog.DiscardHandler)}, sys)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.plan.World != worldNamespaces {
				skipWithoutLayer(t, "namespaces")
			}
			tried := 0
			for _, c := range cases {
				held := slices.ContainsFunc(p.guarantees, func(g Guarantee) bool { return g.Name == c.Guarantee && len(g.Layers) > 0 })
				if !held || seccompAlone[c.ID] && !sys.seccomp {
					continue
				}
				tried++
				for range max(1, c.Repeat) {
					r, err := p.Execute(t.Context(), Request{Code: c.Request.Code, Timeout: 30 * time.Second})
					if err != nil || strings.Contains(r.Stdout, "ESCAPED") || c.Expect["stdout"] == "BLOCKED\n" && r.Stdout != "BLOCKED\n" {
						t.Errorf("%s (%s): %s %q %.300q %v", c.ID, c.Guarantee, r.Status, r.Stdout, r.Stderr, err)
					}
				}
			}
			if tried < 20 {
				t.Errorf("only %d attempts", tried)
			}
		})
	}
}

// seccompAlone are attempts that nothing but the filter refuses, though they break none of the guarantees by themselves.
var seccompAlone = map[string]bool{
	"keys-left-over": true, // it asks whether keys can be made; none is found by the next run
}

// What each kernel gives: where a guarantee is lost, strict does not start.
func TestLayersHoldWhatTheKernelGives(t *testing.T) {
	t.Parallel()
	all := []int{guaranteeReads, guaranteeWrites, guaranteeNetwork, guaranteeProcesses, guaranteePrivilege, guaranteeBounds, guaranteeLeftovers}
	for _, c := range []struct {
		world    world
		euid     int
		landlock int
		seccomp  bool
		lost     []int
	}{
		{worldNamespaces, 1000, 7, true, nil}, {worldNamespaces, 0, 0, true, nil}, {worldNamespaces, 1000, 0, true, nil},
		{worldNamespaces, 1000, 7, false, []int{guaranteeNetwork, guaranteeProcesses, guaranteePrivilege, guaranteeBounds}},
		{worldProcess, 1000, 7, true, nil}, {worldProcess, 0, 7, true, nil}, {worldProcess, 1000, 6, true, nil}, {worldProcess, 0, 6, true, nil},
		{worldProcess, 1000, 5, true, []int{guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 1000, 4, true, []int{guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 1000, 3, true, []int{guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 1000, 2, true, []int{guaranteeWrites, guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 0, 1, true, []int{guaranteeWrites, guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 0, 0, true, []int{guaranteeReads, guaranteeWrites, guaranteeProcesses, guaranteeLeftovers}},
		{worldProcess, 1000, 7, false, []int{guaranteeWrites, guaranteeNetwork, guaranteeProcesses, guaranteePrivilege, guaranteeBounds, guaranteeLeftovers}},
	} {
		name := fmt.Sprintf("%s, id %d, Landlock %d, seccomp %t", c.world, c.euid, c.landlock, c.seccomp)
		table := makeGuarantees(system{euid: c.euid, landlock: c.landlock, seccomp: c.seccomp}, c.world, "namespaces are forbidden")
		for _, i := range all {
			g := table[i]
			lost := len(g.Layers) == 0
			if g.Name != guaranteeNames[i] || lost != slices.Contains(c.lost, i) {
				// An own id is no layer by itself; with it listed alone the guarantee would pass for held.
				t.Errorf("%s: %q is held by %q (%s)", name, guaranteeNames[i], g.Layers, g.Reason)
			}
			if lost != (g.Reason != "") || lost && c.world == worldProcess && !strings.Contains(g.Reason, "namespaces are forbidden, and ") {
				t.Errorf("%s: %q says %q", name, g.Name, g.Reason)
			}
		}
		if gap := firstGap(table); (gap != nil) != (len(c.lost) > 0) || gap != nil && gap.Name != guaranteeNames[c.lost[0]] {
			t.Errorf("%s: the gap is %v", name, gap)
		}
	}
}
