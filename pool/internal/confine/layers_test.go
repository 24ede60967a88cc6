package confine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Which guarantees are lost, by world, user id, Landlock ABI and seccomp. With isolation strict, Caddy does not start when one is.
func TestLayersHoldWhatTheKernelGives(t *testing.T) {
	t.Parallel()
	all := []int{GuaranteeReads, GuaranteeWrites, GuaranteeNetwork, GuaranteeProcesses, GuaranteePrivilege, GuaranteeBounds, GuaranteeLeftovers}
	for _, c := range []struct {
		world    World
		euid     int
		landlock int
		seccomp  bool
		lost     []int
	}{
		{WorldNamespaces, 1000, 7, true, nil}, {WorldNamespaces, 0, 0, true, nil}, {WorldNamespaces, 1000, 0, true, nil},
		{WorldNamespaces, 1000, 7, false, []int{GuaranteeNetwork, GuaranteeProcesses, GuaranteePrivilege, GuaranteeBounds}},
		{WorldProcess, 1000, 7, true, nil}, {WorldProcess, 0, 7, true, nil}, {WorldProcess, 1000, 6, true, nil}, {WorldProcess, 0, 6, true, nil},
		{WorldProcess, 1000, 5, true, []int{GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 1000, 4, true, []int{GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 1000, 3, true, []int{GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 1000, 2, true, []int{GuaranteeWrites, GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 0, 1, true, []int{GuaranteeWrites, GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 0, 0, true, []int{GuaranteeReads, GuaranteeWrites, GuaranteeProcesses, GuaranteeLeftovers}},
		{WorldProcess, 1000, 7, false, []int{GuaranteeWrites, GuaranteeNetwork, GuaranteeProcesses, GuaranteePrivilege, GuaranteeBounds, GuaranteeLeftovers}},
	} {
		name := fmt.Sprintf("%s, id %d, Landlock %d, seccomp %t", c.world, c.euid, c.landlock, c.seccomp)
		table := Guarantees(System{Euid: c.euid, Landlock: c.landlock, Seccomp: c.seccomp}, c.world, "namespaces are forbidden")
		for _, i := range all {
			g := table[i]
			lost := len(g.Layers) == 0
			if g.Name != guaranteeNames[i] || lost != slices.Contains(c.lost, i) {
				// An own id is not sufficient. If it were the only layer listed, the guarantee would count as held.
				t.Errorf("%s: %q is held by %q (%s)", name, guaranteeNames[i], g.Layers, g.Reason)
			}
			if lost != (g.Reason != "") || lost && c.world == WorldProcess && !strings.Contains(g.Reason, "namespaces are forbidden, and ") {
				t.Errorf("%s: %q says %q", name, g.Name, g.Reason)
			}
		}
		if gap := FirstGap(table); (gap != nil) != (len(c.lost) > 0) || gap != nil && gap.Name != guaranteeNames[c.lost[0]] {
			t.Errorf("%s: the gap is %v", name, gap)
		}
	}
}
