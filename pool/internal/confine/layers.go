package confine

import "fmt"

// Guarantees about user code, in the order of the documentation. Each is an index of guaranteeNames.
const (
	GuaranteeReads = iota
	GuaranteeWrites
	GuaranteeNetwork
	GuaranteeProcesses
	GuaranteePrivilege
	GuaranteeBounds
	GuaranteeLeftovers
)

var guaranteeNames = []string{
	GuaranteeReads:     "reads only what Python needs",
	GuaranteeWrites:    "writes only its own scratch, bounded",
	GuaranteeNetwork:   "no network, no host sockets",
	GuaranteeProcesses: "cannot see, signal or trace another process",
	GuaranteePrivilege: "gains no privilege",
	GuaranteeBounds:    "bounded memory, processes, files, CPU time, output",
	GuaranteeLeftovers: "leaves nothing behind for the next run",
}

// Names of layers, as /health and the log show them.
const (
	layerNamespaces = "namespaces"
	layerLandlock   = "Landlock"
	layerSeccomp    = "seccomp"
	layerID         = "own user id"
	layerNoNewPrivs = "no_new_privs"
	layerRlimits    = "rlimits"
	layerMonitor    = "monitor"
	LayerCgroup     = "cgroup"
)

// Guarantee is one promise about user code and the layers that hold it. Without layers it is not held.
type Guarantee struct {
	Name   string   `json:"name"`
	Layers []string `json:"layers"`
	// Reason says why no layer holds it; "" when one does.
	Reason string `json:"reason,omitempty"`
}

// Guarantees returns all guarantees with the layers that hold them in a world. A guarantee has layers only when these are sufficient,
// alone or together. lack says why the system has no namespaces; it is used with WorldProcess only.
func Guarantees(sys System, w World, lack string) []Guarantee {
	table := make([]Guarantee, len(guaranteeNames))
	for i, name := range guaranteeNames {
		table[i] = Guarantee{Name: name, Layers: []string{}}
	}
	hold := func(i int, layers ...string) { table[i].Layers = append(table[i].Layers, layers...) }
	landlocked := landlockHolds(sys.Landlock, w)
	const noSeccomp = "the kernel runs no seccomp filters"
	if w == WorldNamespaces {
		for _, i := range []int{GuaranteeReads, GuaranteeWrites, GuaranteeLeftovers} {
			hold(i, layerNamespaces)
		}
		for i, held := range landlocked {
			if held {
				hold(i, layerLandlock)
			}
		}
		hold(GuaranteeWrites, layerRlimits)
		if !sys.Seccomp {
			// Without seccomp a program could use socket families without a namespace (vsock), change the limits of its lane, which has
			// its uid (prlimit(2)), reach much of the kernel in a user namespace of its own, and hold memory in memfds, which no process's
			// size shows.
			for _, i := range []int{GuaranteeNetwork, GuaranteeProcesses, GuaranteePrivilege, GuaranteeBounds} {
				table[i].Reason = noSeccomp
			}
			return table
		}
		hold(GuaranteeNetwork, layerNamespaces, layerSeccomp)
		hold(GuaranteeProcesses, layerNamespaces, layerSeccomp)
		hold(GuaranteePrivilege, layerNamespaces, layerNoNewPrivs, layerSeccomp)
		hold(GuaranteeBounds, layerRlimits, layerMonitor, layerSeccomp)
		hold(GuaranteeLeftovers, layerSeccomp)
		return table
	}

	// Without namespaces Landlock governs what has a path or one of its scopes (signals, abstract sockets), and seccomp the rest.
	without := func(i int, missing string) { table[i].Reason = fmt.Sprintf("%s, and %s", lack, missing) }
	landlock := func(abi int, linux string) string {
		if sys.Landlock == 0 {
			return fmt.Sprintf("the kernel offers no Landlock (ABI %d is needed, Linux %s)", abi, linux)
		}
		return fmt.Sprintf("Landlock's ABI is %d where %d is needed (Linux %s)", sys.Landlock, abi, linux)
	}
	if landlocked[GuaranteeReads] {
		hold(GuaranteeReads, layerLandlock)
	} else {
		without(GuaranteeReads, landlock(1, "5.13"))
	}
	switch {
	case !landlocked[GuaranteeWrites]:
		without(GuaranteeWrites, landlock(3, "6.2"))
	case sys.Euid == 0:
		hold(GuaranteeWrites, layerLandlock, layerID, layerRlimits, layerMonitor)
	case sys.Seccomp: // Landlock does not govern modes, owners and times of the files of Caddy's user, whose id workers have
		hold(GuaranteeWrites, layerLandlock, layerSeccomp, layerRlimits, layerMonitor)
	default:
		without(GuaranteeWrites, noSeccomp)
	}
	if sys.Seccomp {
		hold(GuaranteeNetwork, layerSeccomp)
		hold(GuaranteePrivilege, layerNoNewPrivs, layerSeccomp)
		hold(GuaranteeBounds, layerRlimits, layerMonitor, layerSeccomp)
	} else {
		for _, i := range []int{GuaranteeNetwork, GuaranteePrivilege, GuaranteeBounds} {
			without(i, noSeccomp)
		}
	}
	for _, i := range []int{GuaranteeProcesses, GuaranteeLeftovers} {
		switch {
		case !landlocked[GuaranteeProcesses]:
			without(i, landlock(6, "6.12"))
		case !sys.Seccomp:
			without(i, noSeccomp)
		default:
			hold(i, layerLandlock, layerSeccomp)
		}
	}
	for _, i := range []int{GuaranteeProcesses, GuaranteePrivilege} {
		if sys.Euid == 0 && len(table[i].Layers) > 0 { // it is not enough alone, so it is listed only beside others
			hold(i, layerID)
		}
	}
	return table
}

// FirstGap returns the first guarantee in table that no layer holds, or nil.
func FirstGap(table []Guarantee) *Guarantee {
	for i := range table {
		if len(table[i].Layers) == 0 {
			return &table[i]
		}
	}
	return nil
}
