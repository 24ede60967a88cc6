package confine

import (
	"encoding/hex"
	"maps"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// viewPlan says which files the paths of a program mean in a lane without a mount namespace; /tmp, for one, means the scratch directory.
// The seccomp filter reports system calls that name paths to the lane (seccomp_unotify(2)). python/calls.py answers them, and
// python/view.py looks the paths up. This confines no file access: the Landlock domain still decides about each.
type viewPlan struct {
	Seccomp   string      `json:"seccomp"` // the filter of user code that reports calls to the lane, in hexadecimal
	Machine   string      `json:"machine"`
	OpenFiles int         `json:"open_files"` // RLIMIT_NOFILE, which workers set when they have sent the filter's listener to the lane
	Calls     []askedCall `json:"calls"`
	// SetsAttributes says that the lane sets modes and times of files for the program, beneath scratch only.
	SetsAttributes bool              `json:"sets_attributes"`
	ScratchNames   []string          `json:"scratch_names"` // directories that mean scratch; programs are told the first one as its path
	Files          map[string]string `json:"files"`         // content of made-up files, by path; $UID and $GID stand for the program's ids
	Left           []string          `json:"left"`          // paths that mean the host's, with all below; those of Landlock rules do, too
	Parents        []string          `json:"parents"`       // directories that exist for programs; other names in them do not
}

// askedCall is a system call that the filter reports to the lane.
type askedCall struct {
	Number int      `json:"number"`
	Name   string   `json:"name"`
	Paths  [][2]int `json:"paths"` // for each path, the arguments with its directory (-1: the working directory) and with the path
}

const (
	// notAsked in the sixth argument, which no call with a path uses, lets a call pass unreported. The lane sets it when it has a program
	// repeat a call with another path (python/tracing.py). A program may set it too: Landlock then decides about its own path.
	notAsked = 0x70617468

	emptyPath = 0x1000 // AT_EMPTY_PATH: with an empty path, the call is about the descriptor itself
)

// askedPaths are the system calls of both architectures that name paths, with the arguments as in askedCall.Paths.
var askedPaths = func() map[string][][2]int {
	calls := map[string][][2]int{
		"symlink": {{-1, 1}}, "symlinkat": {{1, 2}}, "getcwd": {},
		"rename": {{-1, 0}, {-1, 1}}, "link": {{-1, 0}, {-1, 1}},
		"renameat": {{0, 1}, {2, 3}}, "renameat2": {{0, 1}, {2, 3}}, "linkat": {{0, 1}, {2, 3}},
	}
	for _, name := range []string{
		"open", "creat", "stat", "lstat", "access", "mkdir", "rmdir", "unlink", "readlink", "chmod", "chown", "lchown", "utime", "utimes", "truncate", "statfs",
		"chdir", "execve", "mknod", "setxattr", "lsetxattr", "getxattr", "lgetxattr", "listxattr", "llistxattr", "removexattr", "lremovexattr",
	} {
		calls[name] = [][2]int{{-1, 0}}
	}
	for _, name := range []string{
		"openat", "openat2", "newfstatat", "fstatat", "statx", "faccessat", "faccessat2", "mkdirat", "unlinkat", "readlinkat", "fchmodat", "fchmodat2",
		"fchownat", "futimesat", "utimensat", "mknodat", "execveat",
	} {
		calls[name] = [][2]int{{0, 1}}
	}
	return calls
}()

// askedSockets are the system calls with the address of a unix socket. They are reported whatever their arguments, since nothing but the
// lane's answer keeps a program from the host's sockets.
var askedSockets = []string{"bind", "connect", "getsockname", "getpeername"}

// sessionCall makes a session of processes, which the lane bounds, as askedOfCaddy says.
const sessionCall = "setsid"

// askedProcesses are the system calls that tell something of a process, which they name in an argument, and the number of this. They are
// reported unless it is 0, the caller. The lane lets those pass that name a process of the run.
var askedProcesses = map[string]int{
	"getpgid": 0, "getsid": 0, "sched_getaffinity": 0, "sched_getscheduler": 0, "sched_getparam": 0, "sched_getattr": 0, "sched_rr_get_interval": 0,
	"pidfd_open": 0, "getpriority": 1, "ioprio_get": 1,
}

// askedClocks are the system calls that name a clock in their first argument. They are reported where it is the clock of a process: a
// negative number, made of a pid.
var askedClocks = []string{"clock_gettime", "clock_getres", "clock_nanosleep", "timer_create"}

const clockOfProcess = 1 << 31

// emptyPathFlags is the number of the flags argument of each system call that takes AT_EMPTY_PATH, as fstat(3) uses it.
var emptyPathFlags = map[string]int{"newfstatat": 3, "fstatat": 3, "statx": 2, "faccessat2": 3, "fchownat": 4, "linkat": 4, "execveat": 4}

// makeView makes the plan from root, the files of the mount namespace that programs would have where the system allows one.
func makeView(sys System, root rootPlan) (*viewPlan, error) {
	program, err := SeccompProgram(sys.goarch, SeccompPolicy{World: WorldProcess, OwnsFiles: sys.Euid != 0, asks: true})
	if err != nil {
		return nil, err
	}
	table := seccompArches[sys.goarch]
	v := &viewPlan{
		Seccomp: hex.EncodeToString(program), Machine: map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[sys.goarch],
		SetsAttributes: sys.Euid != 0, ScratchNames: []string{"/tmp"}, Files: map[string]string{}, Parents: root.Dirs,
		// Links to the descriptors and the terminal of the process that opens them.
		Left: []string{"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/tty"},
	}
	for _, l := range root.Links {
		if l.To == "/tmp" {
			v.ScratchNames = append(v.ScratchNames, l.Target)
		} else if !Within(l.Target, "/dev") {
			v.Left = append(v.Left, l.Target) // such as /bin
		}
	}
	for _, f := range root.Files {
		if f.Content != "" {
			v.Files[f.Target] = f.Content
		}
	}
	v.Files["/etc/passwd"] = "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:$UID:$GID:sandbox:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
	v.Files["/etc/group"] = "root:x:0:\nsandbox:x:$GID:\nnogroup:x:65534:\n"
	// Programs look up here which file system a file is on, and would not find the paths that they know in the host's mount table.
	v.Files["/proc/self/mountinfo"] = "1 0 0:1 / / ro - rootfs rootfs ro\n2 1 0:2 / /tmp rw,nosuid,nodev - tmpfs scratch rw\n"
	for _, path := range []string{"/proc/mounts", "/proc/self/mounts", "/etc/mtab"} {
		v.Files[path] = "rootfs / rootfs ro 0 0\nscratch /tmp tmpfs rw,nosuid,nodev 0 0\n"
	}
	for name, paths := range askedPaths {
		if number, ok := table.SyscallNames[name]; ok {
			v.Calls = append(v.Calls, askedCall{number, name, paths})
		}
	}
	for _, name := range append([]string{"fchmod", sessionCall}, askedSockets...) {
		v.Calls = append(v.Calls, askedCall{table.SyscallNames[name], name, [][2]int{}})
	}
	for _, name := range append(slices.Collect(maps.Keys(askedProcesses)), askedClocks...) {
		v.Calls = append(v.Calls, askedCall{table.SyscallNames[name], name, [][2]int{}})
	}
	slices.SortFunc(v.Calls, func(a, b askedCall) int { return a.Number - b.Number })
	return v, nil
}

// attributeCalls are the system calls that set the mode or the times of a file. Where user code's id owns files outside of scratch, the
// lane answers them, and sets them beneath scratch only, since Landlock does not govern them.
var attributeCalls = []string{"chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat"}

// ask makes the filter report the system calls named above to the lane, where it would otherwise allow them. ownsFiles is
// SeccompPolicy.OwnsFiles.
func (p *seccompAssembler) ask(table *arch.Info, verdicts []position, allow position, ownsFiles bool) {
	always := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	asked := p.condition(seccompCondition{argument: 5, values: []uint32{notAsked}}, allow, always)
	for _, name := range slices.Sorted(maps.Keys(askedPaths)) {
		number, ok := table.SyscallNames[name]
		if !ok || verdicts[number] != allow {
			continue // only the other architecture has it, or the filter answers it with an errno
		}
		verdicts[number] = asked
		if argument, ok := emptyPathFlags[name]; ok {
			verdicts[number] = p.condition(seccompCondition{argument: argument, mask: emptyPath, values: []uint32{0}}, asked, allow)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(askedProcesses)) {
		if number := table.SyscallNames[name]; verdicts[number] == allow {
			verdicts[number] = p.condition(seccompCondition{argument: askedProcesses[name], values: []uint32{0}}, allow, always)
		}
	}
	for _, name := range askedClocks {
		if number := table.SyscallNames[name]; verdicts[number] == allow {
			verdicts[number] = p.condition(seccompCondition{mask: clockOfProcess, values: []uint32{0}}, allow, always)
		}
	}
	answered := append(slices.Clone(askedSockets), sessionCall) // never allowed with notAsked: nothing else would confine them
	if ownsFiles {
		answered = append(answered, attributeCalls...)
	}
	for _, name := range answered {
		if number, ok := table.SyscallNames[name]; ok {
			verdicts[number] = always
		}
	}
}
