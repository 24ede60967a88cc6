// Package confine decides how Python processes are confined: what they may read, write, call and use. Its result is a plan that
// python/confine.py applies. It starts no processes.
package confine

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// World says whether the system lets Caddy confine processes by namespaces.
type World string

const (
	WorldNamespaces World = "namespaces"
	WorldProcess    World = "process" // no namespaces: Landlock, seccomp, ids and limits only
)

// Order is the order in which a template enters its namespaces. For an ordinary user the user namespace comes first, since it gives the
// right to mount. For root the mounts come first, made with full rights, so that an interpreter below a closed home directory can be bound.
type Order string

const (
	OrderUser Order = "user"
	OrderRoot Order = "root"
)

// Ids of the sandbox, for users and groups alike. In its user namespace user code has SandboxUID. When Caddy is root, the ids 0 to
// HostIDs-1 of a template's user namespace are mapped to host ids from HostIDBase on, a range that no distribution uses (systemd's
// UIDS-GIDS.md lists the used ones).
const (
	SandboxUID = 1000
	HostIDBase = 2_100_000_000
	HostIDs    = 65536
)

// Plan is the whole confinement of a template, its lanes and workers, as python/confine.py applies it.
type Plan struct {
	World      World        `json:"world"`
	Order      Order        `json:"order"`
	Root       rootPlan     `json:"root"`
	UID        int          `json:"uid"`    // the first uid of lanes and their workers, as the template sees it
	UIDs       int          `json:"uids"`   // how many uids there are; a lane's number picks one
	Inside     int          `json:"inside"` // the uid of user code in its own user namespace
	Scratch    Scratch      `json:"scratch"`
	Rlimits    []Rlimit     `json:"rlimits"` // set in the lane, inherited by its workers
	Landlock   landlockPlan `json:"landlock"`
	Seccomp    string       `json:"seccomp"`    // a program in hexadecimal; "" for none
	Asking     string       `json:"asking"`     // a program of lanes that reports calls to Caddy (asked.go); "" for none
	View       *viewPlan    `json:"view"`       // what paths mean without a mount namespace; nil: the same as on the host
	Semaphores bool         `json:"semaphores"` // multiprocessing gets semaphores that need no /dev/shm where View does not work
	Masked     []string     `json:"masked"`     // files and directories of /proc that lanes mount over
	Leftovers  []string     `json:"leftovers"`  // files whose content changes when a run leaves something in the kernel
	Preload    []string     `json:"preload"`
	PythonPath []string     `json:"python_path"`
	Packages   string       `json:"packages"` // the directory of installed packages; "" for none
	Path       string       `json:"-"`        // the environment's PATH
}

// rootPlan is the file system that programs get as their root in a mount namespace.
type rootPlan struct {
	MountPoint string   `json:"mount_point"`
	Dirs       []string `json:"dirs"`
	Files      []File   `json:"files"`
	Links      []Link   `json:"links"`
	Binds      []Bind   `json:"binds"`
}

// File is a small file that is written into the root.
type File struct {
	Target  string `json:"target"`
	Content string `json:"content,omitempty"`
	Copy    string `json:"copy,omitempty"` // a file of the host whose content is copied, if it exists; Content is then not used
	Mode    int    `json:"mode"`
}

// Link is a symbolic link at Target in the root, whose text is To.
type Link struct {
	Target string `json:"target"`
	To     string `json:"to"`
}

// Bind is a bind mount of the host's Source at Target in the root, read-only unless Writable.
type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Dir      bool   `json:"dir"`
	Device   bool   `json:"device"`
	Writable bool   `json:"writable"` // only for an installer's own directory
}

// Scratch says where workers keep files: with namespaces in a tmpfs that each lane mounts at Path, otherwise in a directory that each lane
// makes below Path.
type Scratch struct {
	Path    string `json:"path"`
	Options string `json:"options"` // of the tmpfs
}

// Rlimit is a limit of setrlimit(2), soft and hard, in the unit that the manual gives for it.
type Rlimit struct {
	Name          string `json:"name"`
	Value         int64  `json:"value"`
	AboveTemplate bool   `json:"above_template"` // the template adds the bytes of data that it holds itself
}

// maxPendingSignals is how many signals may wait in a run, and timers exist. The kernel allows a user some ten thousand.
const maxPendingSignals = 1024

// terminals is where each lane mounts a devpts of its own, for pseudo-terminals.
const terminals = "/dev/pts"

// maskedPaths are files and directories of /proc that tell programs about the machine and its owner. runc's default specification masks or
// makes read-only nearly the same ones.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/dynamic_debug", "/proc/fs", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/irq",
	"/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats",
	"/proc/modules", "/proc/pagetypeinfo", "/proc/pressure", "/proc/sched_debug", "/proc/schedstat", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs", "/proc/sysrq-trigger",
	"/proc/sysvipc", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
}

// System holds the facts about the machine on which New decides. It is a value, so that tests can describe any machine.
type System struct {
	Euid     int
	release  string // of the kernel, such as 6.1.0-53-amd64
	Landlock int    // its ABI; 0 for none
	Seccomp  bool
	notify   bool // filters can report calls to a listener
	goarch   string
	isDir    func(path string) bool
	readlink func(path string) (string, bool) // false when path is no symbolic link
	resolve  func(path string) string
}

// ThisSystem returns the facts about the running machine.
func ThisSystem() System {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return System{
		Euid: os.Geteuid(), release: unix.ByteSliceToString(name.Release[:]), Landlock: landlockABI(), goarch: runtime.GOARCH,
		Seccomp: hasSeccomp() && seccompArches[runtime.GOARCH] != nil, notify: hasNotify(),
		isDir: func(path string) bool { info, err := os.Stat(path); return err == nil && info.IsDir() },
		readlink: func(path string) (string, bool) {
			to, err := os.Readlink(path)
			return to, err == nil
		},
		resolve: func(path string) string {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				return real
			}
			return path
		},
	}
}

// atLeast says whether the kernel has this version or a later one. It is false when the version cannot be read.
func (s System) atLeast(major, minor int) bool {
	var has [2]int
	n, _ := fmt.Sscanf(s.release, "%d.%d", &has[0], &has[1])
	return n == 2 && slices.Compare(has[:], []int{major, minor}) >= 0
}

// Limits bound one lane: its worker, and the processes that user code starts.
type Limits struct {
	Memory    int64 // bytes
	Processes int   // threads included
	Scratch   int64 // bytes of files
	OpenFiles int   // of each process
}

// Sources describes the interpreter that is confined, and the directories that it reads. Paths are absolute.
type Sources struct {
	Executable string
	Roots      []string // sys.prefix and its kin, with links resolved
	Paths      []string // its own entries of sys.path
	Libraries  []string // directories of shared libraries that it has loaded
	PythonPath []string // further entries of sys.path, from the configuration
	Preload    []string // modules that the template imports
	Commands   Commands
}

// New decides the confinement of a pool's processes in world w. scratchDir is the host's directory for the scratch of lanes; it is not used
// with namespaces. The error says that no seccomp filter could be made.
func New(bounds Limits, python Sources, sys System, w World, scratchDir string) (Plan, error) {
	p := Plan{World: w, Order: OrderUser, UID: sys.Euid, UIDs: 1, Inside: SandboxUID, Masked: []string{}, Leftovers: []string{}, Preload: python.Preload, PythonPath: python.PythonPath}
	if p.Preload == nil {
		p.Preload = []string{}
	}
	if p.PythonPath == nil {
		p.PythonPath = []string{}
	}
	if sys.Euid == 0 {
		p.Order, p.UID, p.UIDs = OrderRoot, SandboxUID, 60_000
	}
	p.Rlimits = []Rlimit{
		// With 0, the kernel would still pipe core dumps to a program that core_pattern names (core(5)).
		{Name: "RLIMIT_CORE", Value: 1},
		{Name: "RLIMIT_FSIZE", Value: bounds.Scratch},
		{Name: "RLIMIT_NOFILE", Value: int64(bounds.OpenFiles)},
		// The limit counts reserved memory too, such as 8 MiB for the stack of each thread, so it is twice what the monitor allows. It
		// stops a program whose memory grows between two looks of the monitor.
		{Name: "RLIMIT_DATA", Value: 2 * bounds.Memory, AboveTemplate: true},
		{Name: "RLIMIT_MSGQUEUE", Value: 0}, // POSIX message queues outlive their processes
	}
	root := makeRoot(python, sys)
	if w == WorldNamespaces {
		for _, name := range python.Commands.wrapped {
			root.Files = append(root.Files, File{Target: commandsTarget + "/" + name, Mode: 0o755, Content: wrapper(python.Executable)})
		}
		p.Path = python.Commands.path(python.Executable, commandsTarget)
		p.Root = root
		p.Masked = maskedPaths
		p.Scratch = Scratch{Path: "/tmp", Options: fmt.Sprintf("size=%d,nr_inodes=%d,mode=1777", bounds.Scratch, maxFiles(bounds.Scratch))}
	} else {
		p.Scratch = Scratch{Path: scratchDir}
		p.Path = python.Commands.path(python.Executable, filepath.Join(scratchDir, CommandsDir))
		if sys.Euid == 0 {
			p.UID += HostIDBase
		}
	}
	if w == WorldNamespaces && sys.atLeast(5, 14) || sys.Euid == 0 {
		// The kernel counts the processes of a uid, since Linux 5.14 in each user namespace. Here only one lane has this uid or namespace;
		// the lane itself counts, too. Elsewhere every process of Caddy's user counts, so Caddy computes a limit for each worker. The same
		// holds for signals that wait, which timers count as (timer_create(2)): elsewhere the limit would be one for all runs together.
		p.Rlimits = append(p.Rlimits, Rlimit{Name: "RLIMIT_NPROC", Value: int64(bounds.Processes) + 1}, Rlimit{Name: "RLIMIT_SIGPENDING", Value: maxPendingSignals})
	}
	p.Landlock = makeLandlock(sys.Landlock, w, root)
	if w == WorldProcess && len(python.Commands.wrapped) > 0 {
		p.Landlock = p.Landlock.readable(filepath.Join(scratchDir, CommandsDir))
	}
	p.Semaphores = w == WorldProcess && p.Landlock.ABI > 0
	var err error
	if p.Asking, err = askingFilter(sys, w); err != nil {
		return Plan{}, err
	}
	if sys.Seccomp {
		program, err := SeccompProgram(sys.goarch, SeccompPolicy{World: w, OwnsFiles: w == WorldProcess && sys.Euid != 0, memfds: p.Asking != ""})
		if err != nil {
			return Plan{}, err
		}
		p.Seccomp = hex.EncodeToString(program)
		if w == WorldProcess && p.Landlock.ABI > 0 {
			if p.View, err = makeView(sys, root); err != nil {
				return Plan{}, err
			}
			p.View.OpenFiles = bounds.OpenFiles
		}
	} else if w == WorldNamespaces {
		// Without a filter programs can make SysV IPC objects and keys, so a lane looks for these after each run.
		p.Leftovers = []string{"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg", "/proc/key-users"}
		p.Masked = slices.DeleteFunc(slices.Clone(p.Masked), func(path string) bool { return path == "/proc/sysvipc" || path == "/proc/key-users" })
	}
	return p, nil
}

// PackagesTarget is the directory of installed packages, with namespaces.
const PackagesTarget = "/packages"

// LimitsProcesses says whether lanes set RLIMIT_NPROC for their workers. If not, each worker must get a limit of its own when it boots.
func (p Plan) LimitsProcesses() bool {
	return slices.ContainsFunc(p.Rlimits, func(l Rlimit) bool { return l.Name == "RLIMIT_NPROC" })
}

// WithPackages returns p with the directory site added, from which user code may import installed packages. "" adds none.
func (p Plan) WithPackages(site string) Plan {
	if site == "" {
		return p
	}
	if p.World == WorldNamespaces {
		p.Packages = PackagesTarget
		p.Root.Binds = append(slices.Clone(p.Root.Binds), Bind{Source: site, Target: p.Packages, Dir: true})
		return p
	}
	p.Packages = site
	p.Landlock = p.Landlock.readable(site)
	return p
}

// processors is where lscpu and libraries that start a thread for each core look up what the machine has.
const processors = "/sys/devices/system/cpu"

// makeRoot lists the files of a worker's root: the system's programs and libraries, the interpreter with what it imports, certificates,
// facts about the processors, and a small /etc and /dev. It includes nothing else of home directories.
func makeRoot(python Sources, sys System) rootPlan {
	root := rootPlan{
		Dirs: []string{"/proc", "/tmp", "/dev", terminals, "/etc", "/var", "/home", "/run"},
		Files: []File{
			{Target: "/etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:1000:1000:sandbox:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
			{Target: "/etc/group", Mode: 0o644, Content: "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"},
			{Target: "/etc/hosts", Mode: 0o644, Content: "127.0.0.1 localhost sandbox\n::1 localhost\n"},
			{Target: "/etc/nsswitch.conf", Mode: 0o644, Content: "passwd: files\ngroup: files\nhosts: files\n"},
			{Target: "/etc/ld.so.cache", Mode: 0o644, Copy: "/etc/ld.so.cache"},
			{Target: "/etc/localtime", Mode: 0o644, Copy: "/etc/localtime"},
			{Target: "/etc/mime.types", Mode: 0o644, Copy: "/etc/mime.types"},
			{Target: "/etc/services", Mode: 0o644, Copy: "/etc/services"},
			{Target: "/etc/protocols", Mode: 0o644, Copy: "/etc/protocols"},
			{Target: "/etc/ssl/openssl.cnf", Mode: 0o644, Copy: "/etc/ssl/openssl.cnf"},
		},
		Links: []Link{
			{Target: "/dev/shm", To: "/tmp"}, {Target: "/var/tmp", To: "/tmp"},
			{Target: "/dev/ptmx", To: terminals + "/ptmx"}, {Target: "/dev/fd", To: "/proc/self/fd"}, {Target: "/dev/stdin", To: "/proc/self/fd/0"},
			{Target: "/dev/stdout", To: "/proc/self/fd/1"}, {Target: "/dev/stderr", To: "/proc/self/fd/2"},
		},
	}
	for _, candidate := range []string{"/sys", "/mnt", "/media", "/srv", "/opt"} {
		if sys.isDir(candidate) { // any directory will do: it is mounted over in the template's mount namespace only
			root.MountPoint = candidate
			break
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		root.Binds = append(root.Binds, Bind{Source: "/dev/" + device, Target: "/dev/" + device, Device: true})
	}
	var dirs []string
	for _, top := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ssl/certs", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives", "/etc/fonts", processors} {
		if to, isLink := sys.readlink(top); isLink {
			root.Links = append(root.Links, Link{Target: top, To: to})
		} else if sys.isDir(top) {
			dirs = append(dirs, top)
		}
	}
	wanted := slices.Concat([]string{filepath.Dir(python.Executable)}, python.Roots, python.Paths, python.Libraries, python.PythonPath)
	for _, path := range wanted {
		for _, path := range []string{filepath.Clean(path), sys.resolve(path)} {
			// "/" would bind the whole system. An interpreter with that prefix has its files in the directories listed above.
			if path != "/" && filepath.IsAbs(path) && sys.isDir(path) {
				dirs = append(dirs, path)
			}
		}
	}
	for _, dir := range outermost(dirs, root.Links) {
		root.Binds = append(root.Binds, Bind{Source: dir, Target: dir, Dir: true})
	}
	return root
}

// outermost returns paths, sorted, without those within another path, and without those behind one of links, whose destination the root
// has.
func outermost(paths []string, links []Link) []string {
	slices.Sort(paths)
	var kept []string
	for _, path := range paths {
		covered := slices.ContainsFunc(links, func(l Link) bool { return Within(path, l.Target) }) ||
			slices.ContainsFunc(kept, func(k string) bool { return Within(path, k) })
		if !covered {
			kept = append(kept, path)
		}
	}
	return kept
}

// Within says whether path is dir or lies below it. Both are clean, as filepath.Clean returns them, and dir is not "/".
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// maxFiles bounds the number of files in a tmpfs of scratchBytes: each costs the kernel about 1 KiB that the tmpfs's size does not include.
func maxFiles(scratchBytes int64) int64 { return 4096 + scratchBytes/4096 }
