package pool

import "fmt"

// Guarantees about user code, in the order of the documentation. Each index is also one of guaranteeNames.
const (
	guaranteeReads = iota
	guaranteeWrites
	guaranteeNetwork
	guaranteeProcesses
	guaranteePrivilege
	guaranteeBounds
	guaranteeLeftovers
)

var guaranteeNames = []string{
	guaranteeReads:     "reads only what Python needs",
	guaranteeWrites:    "writes only its own scratch, bounded",
	guaranteeNetwork:   "no network, no host sockets",
	guaranteeProcesses: "cannot see, signal or trace another process",
	guaranteePrivilege: "gains no privilege",
	guaranteeBounds:    "bounded memory, processes, files, CPU time, output",
	guaranteeLeftovers: "leaves nothing behind for the next run",
}

// Layers, as they are shown.
const (
	layerNamespaces = "namespaces"
	layerLandlock   = "Landlock"
	layerSeccomp    = "seccomp"
	layerID         = "own user id"
	layerNoNewPrivs = "no_new_privs"
	layerRlimits    = "rlimits"
	layerMonitor    = "monitor"
	layerCgroup     = "cgroup"
)

// heldGuarantee is one promise about user code and the layers that hold it; none means that it is not held.
type heldGuarantee struct {
	Name   string   `json:"name"`
	Layers []string `json:"layers"`
	// Reason says why no layer holds it; empty when one does.
	Reason string `json:"reason,omitempty"`
}

// makeGuarantees says which layers hold each guarantee in a world: only those that are enough by themselves, or that
// together are, never one that merely helps. lack is why there are no namespaces, where there are none.
func makeGuarantees(sys system, w world, lack string) []heldGuarantee {
	table := make([]heldGuarantee, len(guaranteeNames))
	for i, name := range guaranteeNames {
		table[i] = heldGuarantee{Name: name, Layers: []string{}}
	}
	hold := func(i int, layers ...string) { table[i].Layers = append(table[i].Layers, layers...) }
	landlocked := landlockHolds(sys.landlock, w)
	const noSeccomp = "the kernel runs no seccomp filters"
	if w == worldNamespaces {
		for _, i := range []int{guaranteeReads, guaranteeWrites, guaranteeLeftovers} {
			hold(i, layerNamespaces)
		}
		for i, held := range landlocked {
			if held {
				hold(i, layerLandlock)
			}
		}
		hold(guaranteeWrites, layerRlimits)
		if !sys.seccomp {
			// Some families have no namespace (vsock); a lane has its workers' id, which is all that prlimit(2) asks for; a
			// nested user namespace opens much of the kernel; a memfd is in no size of a process.
			for _, i := range []int{guaranteeNetwork, guaranteeProcesses, guaranteePrivilege, guaranteeBounds} {
				table[i].Reason = noSeccomp
			}
			return table
		}
		hold(guaranteeNetwork, layerNamespaces, layerSeccomp)
		hold(guaranteeProcesses, layerNamespaces, layerSeccomp)
		hold(guaranteePrivilege, layerNamespaces, layerNoNewPrivs, layerSeccomp)
		hold(guaranteeBounds, layerRlimits, layerMonitor, layerSeccomp)
		hold(guaranteeLeftovers, layerSeccomp)
		return table
	}

	// Without namespaces a guarantee takes Landlock for what has a path or a scope, and seccomp for what has neither.
	without := func(i int, missing string) { table[i].Reason = fmt.Sprintf("%s, and %s", lack, missing) }
	landlock := func(abi int, linux string) string {
		if sys.landlock == 0 {
			return fmt.Sprintf("the kernel offers no Landlock (ABI %d is needed, Linux %s)", abi, linux)
		}
		return fmt.Sprintf("Landlock's ABI is %d where %d is needed (Linux %s)", sys.landlock, abi, linux)
	}
	if landlocked[guaranteeReads] {
		hold(guaranteeReads, layerLandlock)
	} else {
		without(guaranteeReads, landlock(1, "5.13"))
	}
	switch {
	case !landlocked[guaranteeWrites]:
		without(guaranteeWrites, landlock(3, "6.2"))
	case sys.euid == 0:
		hold(guaranteeWrites, layerLandlock, layerID, layerRlimits, layerMonitor)
	case sys.seccomp: // modes, owners and times of what Caddy's user owns are not Landlock's
		hold(guaranteeWrites, layerLandlock, layerSeccomp, layerRlimits, layerMonitor)
	default:
		without(guaranteeWrites, noSeccomp)
	}
	if sys.seccomp {
		hold(guaranteeNetwork, layerSeccomp)
		hold(guaranteePrivilege, layerNoNewPrivs, layerSeccomp)
		hold(guaranteeBounds, layerRlimits, layerMonitor, layerSeccomp)
	} else {
		for _, i := range []int{guaranteeNetwork, guaranteePrivilege, guaranteeBounds} {
			without(i, noSeccomp)
		}
	}
	for _, i := range []int{guaranteeProcesses, guaranteeLeftovers} {
		switch {
		case !landlocked[guaranteeProcesses]:
			without(i, landlock(6, "6.12"))
		case !sys.seccomp:
			without(i, noSeccomp)
		default:
			hold(i, layerLandlock, layerSeccomp)
		}
	}
	for _, i := range []int{guaranteeProcesses, guaranteePrivilege} {
		if sys.euid == 0 && len(table[i].Layers) > 0 { // a second one, not enough alone: lanes share the host with everybody
			hold(i, layerID)
		}
	}
	return table
}

// firstGap returns the first guarantee that nothing holds, or nil.
func firstGap(table []heldGuarantee) *heldGuarantee {
	for i := range table {
		if len(table[i].Layers) == 0 {
			return &table[i]
		}
	}
	return nil
}
