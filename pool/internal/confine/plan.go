// Package confine decides how a Python is confined: what it may read, write, call and use, as a plan that python/confine.py
// applies. It takes values and starts nothing.
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

// World is what a system lets us build confinement from.
type World string

const (
	WorldNamespaces World = "namespaces"
	WorldProcess    World = "process" // no namespaces: ids, limits and process trees only
)

// Order is how a template reaches its namespaces. Without root the user namespace comes first, since it gives the right
// to mount; as root the mounts come first, with full rights, so that an interpreter under a closed home is reached.
type Order string

const (
	OrderUser Order = "user"
	OrderRoot Order = "root"
)

// Ids of the sandbox. Inside, user code is SandboxUID. When Caddy is root, ids 0 to HostIDs-1 of the sandbox stand for
// host ids from HostIDBase on, a range that no distribution hands out (systemd's UIDS-GIDS.md lists those that are).
const (
	SandboxUID = 1000
	HostIDBase = 2_100_000_000
	HostIDs    = 65536
)

// Plan is the whole confinement of a template and of what it forks: decided here, applied by python/confine.py.
type Plan struct {
	World      World        `json:"world"`
	Order      Order        `json:"order"`
	Root       rootPlan     `json:"root"`
	UID        int          `json:"uid"`    // the first of those that lanes and their workers get, as the template sees it
	UIDs       int          `json:"uids"`   // how many there are; lanes take turns
	Inside     int          `json:"inside"` // what user code sees in its user namespace
	Scratch    Scratch      `json:"scratch"`
	Rlimits    []Rlimit     `json:"rlimits"` // set in the lane, inherited by its workers
	Landlock   landlockPlan `json:"landlock"`
	Seccomp    string       `json:"seccomp"`    // a program in hexadecimal; "" for none
	Memfds     string       `json:"memfds"`     // another, of lanes: it asks Caddy about memfds
	View       *viewPlan    `json:"view"`       // what paths mean where there are no mounts of our own; nil for what the host says
	Semaphores bool         `json:"semaphores"` // ours in the place of those that /dev/shm would hold
	Masked     []string     `json:"masked"`     // files and directories of /proc that are covered
	Leftovers  []string     `json:"leftovers"`  // files whose content tells what a run has left in the kernel
	Preload    []string     `json:"preload"`
	PythonPath []string     `json:"python_path"`
	Packages   string       `json:"packages"` // where installed packages are found; "" for nowhere
	Path       string       `json:"-"`        // the environment's PATH
}

type rootPlan struct {
	MountPoint string   `json:"mount_point"`
	Dirs       []string `json:"dirs"`
	Files      []File   `json:"files"`
	Links      []Link   `json:"links"`
	Binds      []Bind   `json:"binds"`
}

type File struct {
	Target  string `json:"target"`
	Content string `json:"content,omitempty"`
	Copy    string `json:"copy,omitempty"` // a file of the host whose content is taken, when it is there
	Mode    int    `json:"mode"`
}

type Link struct {
	Target string `json:"target"`
	To     string `json:"to"`
}

type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Dir      bool   `json:"dir"`
	Device   bool   `json:"device"`
	Writable bool   `json:"writable"` // an installer's own directory
}

type Scratch struct {
	Path    string `json:"path"`
	Options string `json:"options"` // of the mount; without namespaces each worker makes a directory under Path instead
}

type Rlimit struct {
	Name          string `json:"name"`
	Value         int64  `json:"value"`
	AboveTemplate bool   `json:"above_template"` // what the template holds is added
}

// terminals is where each lane has pseudo-terminals of its own (devpts).
const terminals = "/dev/pts"

// maskedPaths tell of the machine and of its owner. runc masks and makes read-only much the same (its default specification).
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/dynamic_debug", "/proc/fs", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/irq",
	"/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats",
	"/proc/modules", "/proc/pagetypeinfo", "/proc/pressure", "/proc/sched_debug", "/proc/schedstat", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs", "/proc/sysrq-trigger",
	"/proc/sysvipc", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
}

// System is what New needs to know of the machine: a value, so that a test can describe any.
type System struct {
	Euid     int
	release  string // of the kernel, such as 6.1.0-53-amd64
	Landlock int    // its ABI; 0 for none
	Seccomp  bool
	notify   bool // filters can ask
	goarch   string
	isDir    func(path string) bool
	readlink func(path string) (string, bool) // false when path is no link
	resolve  func(path string) string
}

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

// atLeast compares the kernel's version; false when it is unknown.
func (s System) atLeast(major, minor int) bool {
	var has [2]int
	n, _ := fmt.Sscanf(s.release, "%d.%d", &has[0], &has[1])
	return n == 2 && slices.Compare(has[:], []int{major, minor}) >= 0
}

// Limits are those of a plan, for one lane and what its worker starts.
type Limits struct {
	Memory    int64 // bytes
	Processes int   // threads included
	Scratch   int64 // bytes of files
	OpenFiles int   // of each process
}

// Sources is the Python that is confined, and what it imports. Paths are absolute.
type Sources struct {
	Executable string
	Roots      []string // prefixes, resolved
	Paths      []string // import roots
	Libraries  []string // directories of shared libraries that it has loaded
	PythonPath []string // extra import roots
	Preload    []string // modules
	Commands   Commands
}

// New decides the confinement of a pool. scratchDir is used only without namespaces.
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
		// 0 would let a core_pattern that is a pipe have it all the same (core(5)).
		{Name: "RLIMIT_CORE", Value: 1},
		{Name: "RLIMIT_FSIZE", Value: bounds.Scratch},
		{Name: "RLIMIT_NOFILE", Value: int64(bounds.OpenFiles)},
		// Counts reservations too, 8 MiB for the stack of each thread for one, so it stands above the limit that the
		// monitor holds: it stops what grows faster than the monitor looks.
		{Name: "RLIMIT_DATA", Value: 2 * bounds.Memory, AboveTemplate: true},
		{Name: "RLIMIT_MSGQUEUE", Value: 0}, // POSIX queues outlive a process
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
		// Counted for an id and (since Linux 5.14) user namespace that only one lane has, the lane included. Elsewhere it
		// counts every process of Caddy's user, so the limit is made anew for each worker.
		p.Rlimits = append(p.Rlimits, Rlimit{Name: "RLIMIT_NPROC", Value: int64(bounds.Processes) + 1})
	}
	p.Landlock = makeLandlock(sys.Landlock, w, root)
	if w == WorldProcess && len(python.Commands.wrapped) > 0 {
		p.Landlock = p.Landlock.readable(filepath.Join(scratchDir, CommandsDir))
	}
	p.Semaphores = w == WorldProcess && p.Landlock.ABI > 0
	var err error
	if p.Memfds, err = memfdFilter(sys, w); err != nil {
		return Plan{}, err
	}
	if sys.Seccomp {
		program, err := SeccompProgram(sys.goarch, SeccompPolicy{World: w, OwnsFiles: w == WorldProcess && sys.Euid != 0, memfds: p.Memfds != ""})
		if err != nil {
			return Plan{}, err
		}
		p.Seccomp = hex.EncodeToString(program)
		if w == WorldProcess && p.Landlock.ABI > 0 {
			if p.View, err = makeView(sys, root); err != nil {
				return Plan{}, err
			}
		}
	} else if w == WorldNamespaces {
		// What the filter would have refused to make is looked for after each run.
		p.Leftovers = []string{"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg", "/proc/key-users"}
		p.Masked = slices.DeleteFunc(slices.Clone(p.Masked), func(path string) bool { return path == "/proc/sysvipc" || path == "/proc/key-users" })
	}
	return p, nil
}

// PackagesTarget is where installed packages lie in a root of our own.
const PackagesTarget = "/packages"

// LimitsProcesses says whether lanes bound the processes of their workers. Else each worker is to be given a limit.
func (p Plan) LimitsProcesses() bool {
	return slices.ContainsFunc(p.Rlimits, func(l Rlimit) bool { return l.Name == "RLIMIT_NPROC" })
}

// WithPackages lets user code import what lies in the directory site; "" is none.
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

// makeRoot lists what a worker's file system is made of: the system's programs and libraries, the interpreter and what
// it imports, certificates, a small /etc and /dev; nothing of anybody's home beyond that.
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
		if sys.isDir(candidate) { // any directory will do: it is covered in a mount namespace of our own
			root.MountPoint = candidate
			break
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		root.Binds = append(root.Binds, Bind{Source: "/dev/" + device, Target: "/dev/" + device, Device: true})
	}
	var dirs []string
	for _, top := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ssl/certs", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives", "/etc/fonts"} {
		if to, isLink := sys.readlink(top); isLink {
			root.Links = append(root.Links, Link{Target: top, To: to})
		} else if sys.isDir(top) {
			dirs = append(dirs, top)
		}
	}
	wanted := slices.Concat([]string{filepath.Dir(python.Executable)}, python.Roots, python.Paths, python.Libraries, python.PythonPath)
	for _, path := range wanted {
		for _, path := range []string{filepath.Clean(path), sys.resolve(path)} {
			// "/" as a prefix would show the whole system; what it holds of Python lies in the directories above.
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

// outermost sorts paths and drops those that lie within another or behind a link, which is there already.
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

func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// maxFiles bounds the files of a mount of so many bytes: each costs the kernel about a KiB that no size counts.
func maxFiles(scratchBytes int64) int64 { return 4096 + scratchBytes/4096 }
