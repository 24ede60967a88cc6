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

// landlockPlan describes the Landlock domain of a worker (landlock(7)). python/confine.py makes a ruleset that handles these rights, adds
// Rules and those for scratch and /proc/self, and restricts itself: a lane with namespaces after its last mount, for all its workers, and
// otherwise each worker. A rule applies to the directory that its path leads to when it is added. It does not apply to a file system that
// is mounted over that directory later, but a rule for a directory above does.
type landlockPlan struct {
	ABI        int            `json:"abi"` // 0: Landlock is not used
	HandledFS  uint64         `json:"handled_fs"`
	HandledNet uint64         `json:"handled_net"`
	Scoped     uint64         `json:"scoped"`
	AttrSize   int            `json:"attr_size"` // of struct landlock_ruleset_attr as this ABI knows it
	Flags      uint32         `json:"flags"`     // of landlock_restrict_self
	Rules      []LandlockRule `json:"rules"`
	Connect    []int          `json:"connect"`  // TCP ports that may be connected to, where HandledNet covers that
	Scratch    uint64         `json:"scratch"`  // rights beneath the worker's scratch directory
	OwnProc    []LandlockRule `json:"own_proc"` // rules for paths below /proc/self, which each worker opens itself
	Lane       []LandlockRule `json:"lane"`     // rules that a lane without namespaces adds for itself
}

// LandlockRule allows the rights in Access for a file, or for everything beneath a directory. A rule whose path does not exist, or is not
// of the Kind, is left out.
type LandlockRule struct {
	Path   string       `json:"path"`
	Access uint64       `json:"access"`
	Kind   landlockKind `json:"kind"` // the kernel refuses a file's rule that has rights for directories
}

type landlockKind string

const (
	LandlockFile landlockKind = "file"
	LandlockDir  landlockKind = "dir"
)

const (
	newestLandlock = 7 // the rights that later ABI versions add are not used

	LandlockReadFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	LandlockRead     = LandlockReadFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockNodes    = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	landlockDevice   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landlockScratch  = landlockFirst&^landlockNodes | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landlockFirst    = 1<<13 - 1 // the rights of ABI 1, EXECUTE to MAKE_SYM
)

// The files and directories in which interpreters and libraries look up facts about the machine. Without namespaces /proc is the host's, so
// programs may read nothing else of it.
var (
	landlockProcFiles = []string{
		"/proc/cpuinfo", "/proc/filesystems", "/proc/loadavg", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/version", "/proc/vmstat",
		"/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/fs/pipe-max-size", "/proc/sys/net/core/somaxconn",
		"/proc/sys/kernel/cap_last_cap", "/proc/sys/kernel/domainname", "/proc/sys/kernel/hostname", "/proc/sys/kernel/ngroups_max", "/proc/sys/kernel/osrelease",
		"/proc/sys/kernel/ostype", "/proc/sys/kernel/overflowgid", "/proc/sys/kernel/overflowuid", "/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max",
		"/proc/sys/kernel/version", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/entropy_avail", "/proc/sys/kernel/random/uuid",
		"/proc/sys/vm/max_map_count", "/proc/sys/vm/overcommit_memory",
	}
	// Below /proc/self. The mounts and the network are left out, since they are the host's.
	landlockOwnFiles = []string{"auxv", "cmdline", "comm", "environ", "gid_map", "io", "limits", "maps", "oom_score", "oom_score_adj", "sched", "schedstat", "setgroups", "smaps", "smaps_rollup", "stat", "statm", "status", "uid_map", "wchan"}
	landlockOwnDirs  = []string{"fd", "fdinfo"}
)

// makeLandlock decides a worker's domain. With namespaces a worker sees only its own root, and Landlock prevents writes there even if
// a mount is not read-only. Without namespaces only these rules hide the host's files.
//
// With namespaces TCP is not handled, since programs may use the loopback interface of their own network namespace. Without namespaces
// there is no rule for /tmp and /dev/shm, which all users of the host share: programs get scratch instead (view.go). And a rule is
// for the directory in /proc of one process, the worker: what its children may read of theirs the lane opens (python/listings.py).
func makeLandlock(abi int, w World, root rootPlan) landlockPlan {
	if abi <= 0 {
		return landlockPlan{Rules: []LandlockRule{}, Connect: []int{}, OwnProc: []LandlockRule{}, Lane: []LandlockRule{}}
	}
	p := landlockPlan{ABI: min(abi, newestLandlock), HandledFS: landlockFirst, AttrSize: 8, Connect: []int{}, OwnProc: []LandlockRule{}, Lane: []LandlockRule{}}
	if p.ABI >= 2 {
		p.HandledFS |= unix.LANDLOCK_ACCESS_FS_REFER // ABI 1 always refuses to move a file to another directory
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
		// Otherwise user code could fill the host's audit log with denied accesses.
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
			continue // made up for the sandbox; the host's file, such as /etc/passwd, stays hidden
		}
		allow(f.Target, unix.LANDLOCK_ACCESS_FS_READ_FILE, LandlockFile) // the host's file at that path
	}
	for _, path := range landlockProcFiles {
		allow(path, unix.LANDLOCK_ACCESS_FS_READ_FILE, LandlockFile)
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

// readable returns p with one more directory that may be read. It is for plans without namespaces.
func (p landlockPlan) readable(dir string) landlockPlan {
	if p.ABI > 0 {
		p.Rules = append(slices.Clone(p.Rules), LandlockRule{dir, LandlockRead & p.HandledFS, LandlockDir})
	}
	return p
}

// landlockHolds says which guarantees Landlock would hold as the only layer, in the order of guaranteeNames.
func landlockHolds(abi int, w World) []bool {
	holds := make([]bool, len(guaranteeNames))
	// Landlock does not govern stat, so names, sizes and times of files stay visible. With namespaces the whole root may be read.
	holds[0] = abi >= 1 && w == WorldProcess
	// Below ABI 3 any file can be truncated. No ABI governs modes, owners and times. Those need another layer where user code's id owns
	// files outside of scratch and the mounts are not read-only.
	holds[1] = abi >= 3
	// Network: never, since UDP and, before ABI 9, unix sockets with a path stay open.
	// Other processes: Landlock governs ptrace, and what /proc guards by it, from ABI 1, the list of processes by the path rules, and
	// signals from ABI 6. With namespaces all of /proc may be read, so there only the pid namespace hides processes.
	holds[3] = abi >= 6 && w == WorldProcess
	// Privilege, bounds and leftovers (SysV IPC, keys, processes): never.
	return holds
}
