package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

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
