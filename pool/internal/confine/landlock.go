package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// landlockABI returns the version of Landlock that the kernel offers, 0 for none (landlock_create_ruleset(2)).
func landlockABI() int {
	abi, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if err != 0 {
		return 0
	}
	return int(abi)
}

// landlockPlan is a Landlock domain for a worker, see landlock(7). A ruleset that handles the rights is made, each rule is
// added to it, then the two that depend on the worker, and the worker enters it after its last mount. A rule holds for the
// directory that is there when it is added; for what is mounted over it later it does not, but one for the directory
// above does.
type landlockPlan struct {
	ABI        int            `json:"abi"` // 0: there is nothing to apply
	HandledFS  uint64         `json:"handled_fs"`
	HandledNet uint64         `json:"handled_net"`
	Scoped     uint64         `json:"scoped"`
	AttrSize   int            `json:"attr_size"` // of struct landlock_ruleset_attr as this ABI knows it
	Flags      uint32         `json:"flags"`     // of landlock_restrict_self
	Rules      []LandlockRule `json:"rules"`
	Connect    []int          `json:"connect"`  // TCP ports, where connecting is handled
	Scratch    uint64         `json:"scratch"`  // rights beneath the worker's scratch directory
	OwnProc    []LandlockRule `json:"own_proc"` // for paths below /proc/self, which is the worker's only in the worker
	Lane       []LandlockRule `json:"lane"`     // what a lane without namespaces reads besides
}

// LandlockRule allows access to a file, or beneath a directory. A path that is not there, or is of the other kind, is
// passed over.
type LandlockRule struct {
	Path   string       `json:"path"`
	Access uint64       `json:"access"`
	Kind   landlockKind `json:"kind"` // a rule for a file may hold no rights of directories
}

type landlockKind string

const (
	LandlockFile landlockKind = "file"
	LandlockDir  landlockKind = "dir"
)

const (
	newestLandlock = 7 // what later versions add is not used here

	LandlockReadFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	LandlockRead     = LandlockReadFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockNodes    = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	landlockDevice   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landlockScratch  = landlockFirst&^landlockNodes | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landlockFirst    = 1<<13 - 1 // the rights of ABI 1, EXECUTE to MAKE_SYM
)

// What interpreters and libraries read to learn about the machine. Without namespaces /proc is the host's, so no more of
// it is shown.
var (
	landlockProcFiles = []string{
		"/proc/cpuinfo", "/proc/filesystems", "/proc/loadavg", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/version",
		"/proc/sys/kernel/ngroups_max", "/proc/sys/kernel/osrelease", "/proc/sys/vm/overcommit_memory",
	}
	landlockSysDirs = []string{"/sys/devices/system/cpu"}
	// Without the mounts and the network, which are the host's here.
	landlockOwnFiles = []string{"auxv", "cmdline", "comm", "environ", "io", "limits", "maps", "oom_score", "smaps", "smaps_rollup", "stat", "statm", "status"}
	landlockOwnDirs  = []string{"fd", "fdinfo"}
)

// makeLandlock decides a worker's domain. With namespaces the root is the worker's own already, and Landlock keeps it
// from writing there should a mount not be read-only; without them the rules are all that hides the host's files.
//
// Left out on purpose: with namespaces TCP is not handled, for the loopback of the sandbox's own network is there to be
// used. Without them /tmp and /dev/shm are everybody's, so a program has its scratch in their place (view.go); and
// the children of a worker cannot read their own /proc/self, since a rule names one directory.
func makeLandlock(abi int, w World, root rootPlan) landlockPlan {
	if abi <= 0 {
		return landlockPlan{Rules: []LandlockRule{}, Connect: []int{}, OwnProc: []LandlockRule{}, Lane: []LandlockRule{}}
	}
	p := landlockPlan{ABI: min(abi, newestLandlock), HandledFS: landlockFirst, AttrSize: 8, Connect: []int{}, OwnProc: []LandlockRule{}, Lane: []LandlockRule{}}
	if p.ABI >= 2 {
		p.HandledFS |= unix.LANDLOCK_ACCESS_FS_REFER // below, no file may move to another directory at all
	}
	if p.ABI >= 3 {
		p.HandledFS |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if p.ABI >= 4 {
		p.AttrSize = 16
		if w == WorldProcess {
			p.HandledNet = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if p.ABI >= 5 {
		p.HandledFS |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if p.ABI >= 6 {
		p.AttrSize = 24
		p.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	if p.ABI >= 7 {
		// User code tries what it likes; the host's audit log is not for it to fill.
		p.Flags = unix.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF | unix.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF
	}
	// The kernel refuses a rule with rights that the ruleset does not handle.
	p.Scratch = landlockScratch & p.HandledFS
	allow := func(path string, access uint64, kind landlockKind) {
		p.Rules = append(p.Rules, LandlockRule{path, access & p.HandledFS, kind})
	}
	for _, b := range root.Binds {
		switch {
		case b.Device:
			allow(b.Source, landlockDevice, LandlockFile)
		case w == WorldProcess && b.Dir:
			allow(b.Source, LandlockRead, LandlockDir)
		case w == WorldProcess:
			allow(b.Source, LandlockReadFile, LandlockFile)
		}
	}
	if w == WorldNamespaces {
		allow("/", LandlockRead, LandlockDir)
		allow(terminals, landlockDevice, LandlockDir)
		return p
	}
	for _, f := range root.Files {
		if f.Content != "" {
			continue // the sandbox's own is made up; the host's tells who has an account
		}
		allow(f.Target, unix.LANDLOCK_ACCESS_FS_READ_FILE, LandlockFile) // the host's own of that name
	}
	for _, path := range landlockProcFiles {
		allow(path, unix.LANDLOCK_ACCESS_FS_READ_FILE, LandlockFile)
	}
	for _, path := range landlockSysDirs {
		allow(path, unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_READ_DIR, LandlockDir)
	}
	for _, name := range landlockOwnFiles {
		p.OwnProc = append(p.OwnProc, LandlockRule{"/proc/self/" + name, unix.LANDLOCK_ACCESS_FS_READ_FILE, LandlockFile})
	}
	p.Lane = []LandlockRule{{"/proc", unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR, LandlockDir}}
	for _, name := range landlockOwnDirs {
		p.OwnProc = append(p.OwnProc, LandlockRule{"/proc/self/" + name, unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR, LandlockDir})
	}
	return p
}

// readable returns p with one more directory that may be read, where rules are what hides the host's files.
func (p landlockPlan) readable(dir string) landlockPlan {
	if p.ABI > 0 {
		p.Rules = append(slices.Clone(p.Rules), LandlockRule{dir, LandlockRead & p.HandledFS, LandlockDir})
	}
	return p
}

// landlockHolds says which guarantees Landlock holds were it the only layer, in the order of guaranteeNames.
func landlockHolds(abi int, w World) []bool {
	holds := make([]bool, len(guaranteeNames))
	// Names, sizes and times of files can still be asked for: stat is not governed. With namespaces all of the root may be read.
	holds[0] = abi >= 1 && w == WorldProcess
	// Below ABI 3 any file can be truncated. Modes, owners and times are not governed at all: they are safe where user
	// code's id owns nothing outside, or the mounts are read-only.
	holds[1] = abi >= 3
	// Network: UDP and, before ABI 9, unix sockets with a path stay open, so never alone.
	// Other processes: ptrace and what /proc guards by it from ABI 1, the list of processes by the path rules, signals
	// from ABI 6. With namespaces the whole of /proc may be read, and what it shows is for the pid namespace to say.
	holds[3] = abi >= 6 && w == WorldProcess
	// Privilege, bounds and what stays behind (SysV ipc, keys, processes) are for others.
	return holds
}
