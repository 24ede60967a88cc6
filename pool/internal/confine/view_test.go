package confine

import (
	"encoding/hex"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// asked says whether a filter reports a system call to its listener.
func asked(t *testing.T, program []byte, auditArch, number uint32, arguments ...uint64) bool {
	t.Helper()
	return action(t, program, auditArch, number, arguments...)&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_USER_NOTIF
}

// The filter reports calls that name a path, but not frequent calls such as read and write, which reports would slow down. It always
// reports calls with the address of a socket, since only the lane's answer keeps a program from the host's sockets.
func TestFilterAsks(t *testing.T) {
	t.Parallel()
	const openRead = unix.O_RDONLY
	here := uint64(0xffffff9c) // AT_FDCWD
	for _, arch := range []struct {
		goarch string
		audit  uint32
	}{{"amd64", auditAMD64}, {"arm64", auditARM64}} {
		table := seccompArches[arch.goarch]
		program := makeProgram(t, arch.goarch, SeccompPolicy{World: WorldProcess, OwnsFiles: true, asks: true})
		plain := makeProgram(t, arch.goarch, amongProcesses)
		for _, c := range []struct {
			name      string
			arguments []uint64
			want      bool
		}{
			{"openat", []uint64{here, 0, openRead}, true}, {"openat", []uint64{here, 0, openRead, 0, 0, notAsked}, false}, {"openat2", nil, true}, {"mkdirat", nil, true},
			{"unlinkat", nil, true}, {"renameat2", nil, true}, {"linkat", nil, true}, {"symlinkat", nil, true}, {"readlinkat", nil, true}, {"execve", nil, true}, {"chdir", nil, true},
			{"getcwd", nil, true}, {"statx", nil, true}, {"statx", []uint64{3, 0, emptyPath}, false}, {"faccessat2", nil, true}, {"truncate", nil, true}, {"statfs", nil, true},
			{"open", nil, true}, {"stat", nil, true}, {"rename", nil, true}, {"mkdir", nil, true},
			{"newfstatat", []uint64{here, 0, 0, 0x100}, true}, {"newfstatat", []uint64{3, 0, 0, emptyPath}, false},
			{"connect", nil, true}, {"bind", nil, true}, {"connect", []uint64{3, 0, 0, 0, 0, notAsked}, true}, {"bind", []uint64{3, 0, 0, 0, 0, notAsked}, true}, {"getsockname", nil, true},
			{"read", nil, false}, {"write", nil, false}, {"close", nil, false}, {"fstat", nil, false}, {"mmap", nil, false}, {"clone", nil, false}, {"futex", nil, false}, {"accept4", nil, false},
			{"getpgid", nil, false}, {"getpgid", []uint64{1}, true}, {"getsid", []uint64{9}, true}, {"sched_getaffinity", nil, false},
			{"sched_getaffinity", []uint64{9}, true}, {"sched_getscheduler", []uint64{9}, true}, {"sched_getparam", []uint64{9}, true},
			{"sched_getattr", []uint64{9}, true}, {"sched_rr_get_interval", []uint64{9}, true}, {"pidfd_open", []uint64{9}, true},
			{"getpriority", nil, false}, {"getpriority", []uint64{0, 9}, true}, {"ioprio_get", []uint64{1}, false}, {"ioprio_get", []uint64{1, 9}, true},
			{"clock_gettime", []uint64{unix.CLOCK_PROCESS_CPUTIME_ID}, false}, {"clock_gettime", []uint64{0xffffffb2}, true}, {"clock_getres", []uint64{0xffffffb2}, true},
			{"clock_nanosleep", []uint64{0xffffffb2}, true}, {"timer_create", []uint64{0xffffffb2}, true}, {"timer_create", []uint64{unix.CLOCK_MONOTONIC}, false},
			{"fchdir", nil, false}, {"getdents64", nil, false}, {"listen", nil, false},
			// The lane always answers these where user code's id owns files outside of scratch.
			{"chmod", nil, true}, {"fchmodat", nil, true}, {"fchmodat", []uint64{here, 0, 0o777, 0, 0, notAsked}, true}, {"fchmodat2", nil, true},
			{"setsid", nil, true}, {"setsid", []uint64{0, 0, 0, 0, 0, notAsked}, true}, {"fchmod", nil, true}, {"utimensat", nil, true}, {"utimensat", []uint64{here, 0, 0, 0, 0, notAsked}, true}, {"utime", nil, true}, {"futimesat", nil, true},
		} {
			number, ok := table.SyscallNames[c.name]
			if !ok {
				continue // only the other architecture has it
			}
			if got := asked(t, program, arch.audit, uint32(number), c.arguments...); got != c.want {
				t.Errorf("%s: %s %v: asked is %v, want %v", arch.goarch, c.name, c.arguments, got, c.want)
			}
			if asked(t, plain, arch.audit, uint32(number), c.arguments...) {
				t.Errorf("%s: %s %v: a filter asks that has nobody to ask", arch.goarch, c.name, c.arguments)
			}
		}
		socket := uint32(table.SyscallNames["socket"])
		for _, c := range []struct {
			arguments []uint64
			want      unix.Errno
		}{
			{[]uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0}, 0}, {[]uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, unix.EACCES},
			{[]uint64{unix.AF_UNIX, unix.SOCK_DGRAM, 0}, unix.EACCES}, {[]uint64{unix.AF_UNIX, unix.SOCK_RAW, 0}, unix.EACCES},
			{[]uint64{unix.AF_INET, unix.SOCK_STREAM, 0}, unix.EACCES}, {[]uint64{unix.AF_NETLINK, unix.SOCK_RAW, 0}, unix.EACCES}, {[]uint64{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, unix.EACCES},
		} {
			if got := answers(t, program, arch.audit, socket, c.arguments...); got != c.want {
				t.Errorf("%s: socket %v: got %v, want %v", arch.goarch, c.arguments, got, c.want)
			}
		}
	}
}

// Only plans without namespaces and with Landlock have a view.
func TestViewIsForProcessesUnderLandlock(t *testing.T) {
	t.Parallel()
	sys := describedSystem(0, []string{"/usr"}, map[string]string{"/bin": "usr/bin"})
	sys.goarch, sys.Seccomp, sys.Landlock = "amd64", true, 7
	make := func(s System, w World) *viewPlan {
		p, err := New(testLimits, Sources{Executable: "/usr/bin/python3"}, s, w, "/scratch")
		if err != nil {
			t.Fatal(err)
		}
		return p.View
	}
	if make(sys, WorldNamespaces) != nil {
		t.Error("with namespaces something is asked")
	}
	open := sys
	open.Landlock = 0
	if make(open, WorldProcess) != nil {
		t.Error("without Landlock, where /tmp is open, something is asked")
	}
	view := make(sys, WorldProcess)
	if view == nil || !slices.Contains(view.ScratchNames, "/dev/shm") || !slices.Contains(view.ScratchNames, "/var/tmp") || view.ScratchNames[0] != "/tmp" || !slices.Contains(view.Left, "/bin") {
		t.Fatalf("got %+v", view)
	}
	if again := make(sys, WorldProcess); again.Seccomp != view.Seccomp {
		t.Error("the same plan has two filters")
	}
	if _, err := hex.DecodeString(view.Seccomp); err != nil {
		t.Error(err)
	}
}
