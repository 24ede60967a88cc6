package confine

import (
	"encoding/hex"
	"maps"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// viewPlan is what paths mean to programs where there is no mount namespace: python/view.py decides by it, and python/calls.py
// answers what the kernel asks. It makes no wall and takes none away: what it lets pass meets Landlock as before.
type viewPlan struct {
	Seccomp      string            `json:"seccomp"` // the filter of user code that asks, in hexadecimal
	Machine      string            `json:"machine"`
	Calls        []askedCall       `json:"calls"`
	SetsModes    bool              `json:"sets_modes"`    // the lane sets modes itself, beneath scratch only
	ScratchNames []string          `json:"scratch_names"` // directories that are the program's own scratch; the first is what it is told
	Files        map[string]string `json:"files"`         // made up; $UID and $GID are the program's
	Left         []string          `json:"left"`          // what the kernel answers for with all that lies below, besides that which Landlock has rules for
	Parents      []string          `json:"parents"`       // directories that are there, and no more is told of them
}

// askedCall is a system call that names paths.
type askedCall struct {
	Number int      `json:"number"`
	Name   string   `json:"name"`
	Paths  [][2]int `json:"paths"` // the argument with the directory that a relative path starts from (-1 for the working directory), and that with the path
}

const (
	// notAsked in the last argument, which no call with a path has, lets a call pass: the lane has made it say what is meant.
	// A program may put it there, too; it then gets what Landlock says.
	notAsked = 0x70617468

	emptyPath = 0x1000 // AT_EMPTY_PATH: the call is about a descriptor
)

// askedPaths are the calls of both architectures that name a path, and where it stands among their arguments.
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

// askedSockets are the calls with the address of a unix socket. Which socket a program gets to is for the lane to say, so these
// are asked about whatever their arguments.
var askedSockets = []string{"bind", "connect", "getsockname", "getpeername"}

// emptyPathFlags is the argument of calls whose flags may say that they are about a descriptor, as fstat(3) does.
var emptyPathFlags = map[string]int{"newfstatat": 3, "fstatat": 3, "statx": 2, "faccessat2": 3, "fchownat": 4, "linkat": 4, "execveat": 4}

// makeView decides it for what a root of our own would be made of.
func makeView(sys System, root rootPlan) (*viewPlan, error) {
	program, err := SeccompProgram(sys.goarch, SeccompPolicy{World: WorldProcess, OwnsFiles: sys.Euid != 0, asks: true})
	if err != nil {
		return nil, err
	}
	table := seccompArches[sys.goarch]
	v := &viewPlan{
		Seccomp: hex.EncodeToString(program), Machine: map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[sys.goarch],
		SetsModes: sys.Euid != 0, ScratchNames: []string{"/tmp"}, Files: map[string]string{}, Parents: root.Dirs,
		// What these lead to, the kernel knows best.
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
	// Made up, since what reads the host's mounts looks for the file system that a file lies on.
	v.Files["/proc/self/mountinfo"] = "1 0 0:1 / / ro - rootfs rootfs ro\n2 1 0:2 / /tmp rw,nosuid,nodev - tmpfs scratch rw\n"
	for _, path := range []string{"/proc/mounts", "/proc/self/mounts", "/etc/mtab"} {
		v.Files[path] = "rootfs / rootfs ro 0 0\nscratch /tmp tmpfs rw,nosuid,nodev 0 0\n"
	}
	for name, paths := range askedPaths {
		if number, ok := table.SyscallNames[name]; ok {
			v.Calls = append(v.Calls, askedCall{number, name, paths})
		}
	}
	for _, name := range askedSockets {
		v.Calls = append(v.Calls, askedCall{table.SyscallNames[name], name, [][2]int{}})
	}
	slices.SortFunc(v.Calls, func(a, b askedCall) int { return a.Number - b.Number })
	return v, nil
}

// modeCalls set the mode of a path. Where the id of user code owns files outside of scratch a lane sets modes itself.
var modeCalls = []string{"chmod", "fchmodat", "fchmodat2"}

// ask makes the filter ask where it would allow a call that is named above. ownsFiles is SeccompPolicy.OwnsFiles.
func (p *seccompAssembler) ask(table *arch.Info, verdicts []position, allow position, ownsFiles bool) {
	always := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	asked := p.condition(seccompCondition{argument: 5, values: []uint32{notAsked}}, allow, always)
	for _, name := range slices.Sorted(maps.Keys(askedPaths)) {
		number, ok := table.SyscallNames[name]
		if !ok || verdicts[number] != allow {
			continue // of the other architecture, or answered by the filter itself
		}
		verdicts[number] = asked
		if argument, ok := emptyPathFlags[name]; ok {
			verdicts[number] = p.condition(seccompCondition{argument: argument, mask: emptyPath, values: []uint32{0}}, asked, allow)
		}
	}
	answered := slices.Clone(askedSockets) // a call of the program's own may reach what is not its own
	if ownsFiles {
		answered = append(answered, modeCalls...)
	}
	for _, name := range answered {
		if number, ok := table.SyscallNames[name]; ok {
			verdicts[number] = always
		}
	}
}
