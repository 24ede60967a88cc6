package confine

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	auditAMD64 = 0xc000003e // linux/audit.h
	auditI386  = 0x40000003
	auditARM64 = 0xc00000b7
	auditARM   = 0x40000028
)

var (
	inNamespaces   = SeccompPolicy{World: WorldNamespaces}
	amongProcesses = SeccompPolicy{World: WorldProcess, OwnsFiles: true}
)

// answers runs a filter on a system call, as the kernel does, and returns the errno; 0 means that the call is allowed.
func answers(t *testing.T, program []byte, auditArch, number uint32, arguments ...uint64) unix.Errno {
	t.Helper()
	verdict := action(t, program, auditArch, number, arguments...)
	switch verdict & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW:
		return 0
	case unix.SECCOMP_RET_ERRNO:
		return unix.Errno(verdict & unix.SECCOMP_RET_DATA)
	}
	t.Fatalf("call %d gets action %#x: neither allowed nor refused", number, verdict)
	return 0
}

// action runs a filter on a system call, as the kernel does, and returns its action.
func action(t *testing.T, program []byte, auditArch, number uint32, arguments ...uint64) uint32 {
	t.Helper()
	var raw []bpf.RawInstruction
	for i := range slices.Chunk(program, 8) {
		raw = append(raw, bpf.RawInstruction{Op: binary.LittleEndian.Uint16(i), Jt: i[2], Jf: i[3], K: binary.LittleEndian.Uint32(i[4:])})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter holds an unknown instruction")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data. bpf.VM reads words in network byte order, whereas the kernel reads them in that of the machine.
	data := binary.BigEndian.AppendUint32(nil, number)
	data = binary.BigEndian.AppendUint32(data, auditArch)
	data = append(data, make([]byte, 8+6*8)...)
	for i, argument := range arguments {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(argument))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(argument>>32))
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func makeProgram(t *testing.T, goarch string, policy SeccompPolicy) []byte {
	t.Helper()
	program, err := SeccompProgram(goarch, policy)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestSeccompAnswersCalls(t *testing.T) {
	t.Parallel()
	const high = 1 << 40 // bits that the kernel does not read
	for _, c := range []struct {
		name      string
		arguments []uint64
		want      unix.Errno
	}{
		{"read", nil, 0}, {"write", nil, 0}, {"openat", nil, 0}, {"openat2", nil, 0}, {"mmap", nil, 0}, {"mprotect", nil, 0}, {"futex", nil, 0},
		{"execve", nil, 0}, {"wait4", nil, 0}, {"exit_group", nil, 0}, {"rt_sigreturn", nil, 0}, {"getrandom", nil, 0}, {"memfd_create", nil, unix.EPERM},
		{"newfstatat", nil, 0}, {"statx", nil, 0}, {"epoll_pwait", nil, 0}, {"close_range", nil, 0}, {"rseq", nil, 0}, {"set_robust_list", nil, 0},
		{"kill", nil, 0}, {"tgkill", nil, 0}, {"pidfd_send_signal", nil, 0}, {"prctl", nil, 0}, {"setresuid", nil, 0}, {"sched_getaffinity", []uint64{7}, 0},
		{"landlock_restrict_self", nil, 0}, {"connect", nil, 0}, {"sendmsg", nil, 0}, {"madvise", nil, 0},
		{"vfork", nil, 0}, {"fork", nil, 0}, {"stat", nil, 0}, {"poll", nil, 0}, {"ppoll", nil, 0}, {"faccessat2", nil, 0}, {"fcntl", nil, 0},
		{"fcntl", []uint64{3, unix.F_NOTIFY}, unix.EPERM}, {"fcntl", []uint64{3, unix.F_SETLEASE}, unix.EPERM}, {"fcntl", []uint64{3, unix.F_SETLK}, 0},
		{"inotify_add_watch", nil, unix.EPERM}, {"process_mrelease", nil, unix.EPERM},
		{"kill", []uint64{12, 9}, 0},

		{"clone3", nil, unix.ENOSYS}, {"open_tree_attr", nil, unix.ENOSYS},

		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, 0}, {"clone", []uint64{uint64(unix.SIGCHLD)}, 0},
		{"clone", []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, unix.EPERM}, {"clone", []uint64{unix.CLONE_NEWNS}, unix.EPERM},
		{"clone", []uint64{unix.CLONE_NEWCGROUP}, unix.EPERM}, {"clone", []uint64{unix.CLONE_NEWTIME}, unix.EPERM},
		{"clone", []uint64{high | unix.CLONE_NEWPID}, unix.EPERM}, {"clone", []uint64{unix.CLONE_NEWNET}, unix.EPERM},

		{"ioctl", []uint64{0, unix.TCGETS}, 0}, {"ioctl", []uint64{0, unix.TIOCINQ}, 0}, {"ioctl", []uint64{0, unix.TIOCSTI}, unix.EPERM},
		{"ioctl", []uint64{0, high | unix.TIOCSTI}, unix.EPERM}, {"ioctl", []uint64{0, unix.TIOCLINUX}, unix.EPERM},

		{"personality", []uint64{0}, 0}, {"personality", []uint64{0xffffffff}, 0}, {"personality", []uint64{0x0040000}, unix.EPERM}, {"personality", []uint64{8}, unix.EPERM},
		{"seccomp", []uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC}, 0},
		{"seccomp", []uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER}, unix.EPERM},

		{"prlimit64", []uint64{0, 7}, 0}, {"prlimit64", []uint64{high}, 0}, {"prlimit64", []uint64{1}, unix.EPERM},
		{"sched_setaffinity", []uint64{0}, 0}, {"sched_setaffinity", []uint64{9}, unix.EPERM}, {"sched_setattr", []uint64{9}, unix.EPERM},
		{"sched_setscheduler", []uint64{9}, unix.EPERM}, {"sched_setparam", []uint64{9}, unix.EPERM}, {"sched_setparam", []uint64{0}, 0},
		{"setpriority", []uint64{0, 0, 5}, 0}, {"setpriority", []uint64{0, 1, 5}, unix.EPERM}, {"setpriority", []uint64{2, 0, 5}, unix.EPERM},
		{"ioprio_set", []uint64{1, 0}, 0}, {"ioprio_set", []uint64{1, 1}, unix.EPERM}, {"ioprio_set", []uint64{3, 0}, unix.EPERM},

		// An ioctl that no terminal and no socket has: FS_IOC_SETFLAGS, FS_IOC_SETVERSION, FS_IOC_FSSETXATTR, EXT4_IOC_SETVERSION, FICLONE, UFFDIO_API.
		{"ioctl", []uint64{0, 0x40086602}, unix.ENOTTY}, {"ioctl", []uint64{0, 0x40087602}, unix.ENOTTY}, {"ioctl", []uint64{0, 0x401c5820}, unix.ENOTTY},
		{"ioctl", []uint64{0, 0x40046604}, unix.ENOTTY}, {"ioctl", []uint64{0, 0x40049409}, unix.ENOTTY}, {"ioctl", []uint64{0, 0xc018aa3f}, unix.ENOTTY},
		{"ioctl", []uint64{0, 0x5421}, 0}, {"ioctl", []uint64{0, 0x541b}, 0}, {"ioctl", []uint64{0, unix.TIOCGWINSZ}, 0}, {"ioctl", []uint64{0, unix.SIOCGIFCONF}, 0},
		{"fcntl", []uint64{0, unix.F_SETFL}, 0}, {"fcntl", []uint64{0, unix.F_SET_RW_HINT}, unix.EPERM}, {"fcntl", []uint64{0, unix.F_SET_FILE_RW_HINT}, unix.EPERM},
		{"fcntl", []uint64{0, unix.F_GET_RW_HINT}, 0}, {"vmsplice", nil, unix.EPERM}, {"splice", nil, 0}, {"tee", nil, 0},
		{"fallocate", nil, 0}, {"fallocate", []uint64{0, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE}, 0},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, 0}, {"prctl", []uint64{unix.PR_GET_DUMPABLE, 0}, 0}, {"prctl", []uint64{unix.PR_SET_NAME, 0}, 0},

		{"socketpair", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, 0}, {"socketpair", []uint64{unix.AF_TIPC, unix.SOCK_STREAM}, unix.EAFNOSUPPORT},
	} {
		for _, goarch := range []string{"amd64", "arm64"} {
			number, ok := seccompArches[goarch].SyscallNames[c.name]
			switch {
			case ok:
			case goarch == "arm64" && c.name == "newfstatat":
				number = 79
			case goarch == "arm64" && slices.Contains([]string{"vfork", "stat", "poll", "fork"}, c.name):
				continue
			default:
				t.Fatalf("%s has no %s", goarch, c.name)
			}
			for _, policy := range []SeccompPolicy{inNamespaces, amongProcesses} {
				if got := answers(t, makeProgram(t, goarch, policy), uint32(seccompArches[goarch].ID), uint32(number), c.arguments...); got != c.want {
					t.Errorf("%s: %s%#x: got %d, want %d", goarch, c.name, c.arguments, got, c.want)
				}
			}
		}
	}
}

func TestSeccompAnswersByWorld(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		argument          uint64
		namespaces, alone unix.Errno
	}{
		{"kill", 1, unix.EPERM, 0}, {"tgkill", 1, unix.EPERM, 0}, {"pidfd_open", 1, unix.EPERM, 0},
		{"kill", 1<<64 - 1, 0, unix.EPERM},
		{"setxattr", 0, 0, unix.EOPNOTSUPP}, {"fremovexattr", 0, 0, unix.EOPNOTSUPP},
	} {
		for goarch, table := range seccompArches {
			number := uint32(table.SyscallNames[c.name])
			if got := answers(t, makeProgram(t, goarch, inNamespaces), uint32(table.ID), number, c.argument); got != c.namespaces {
				t.Errorf("%s, namespaces: %s(%#x): got %d", goarch, c.name, c.argument, got)
			}
			if got := answers(t, makeProgram(t, goarch, amongProcesses), uint32(table.ID), number, c.argument); got != c.alone {
				t.Errorf("%s, no namespaces: %s(%#x): got %d", goarch, c.name, c.argument, got)
			}
		}
	}
}

// An installer without namespaces makes TCP sockets and no others. Landlock says which port they may reach.
func TestSeccompAnswersSocketsOfInstallers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		family, kind, protocol uint64
		want                   unix.Errno
	}{
		{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0, 0}, {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, 0},
		{unix.AF_INET, unix.SOCK_DGRAM, 0, unix.EPERM}, {unix.AF_INET, unix.SOCK_RAW, 1, unix.EPERM}, {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, unix.EPROTONOSUPPORT},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT}, {unix.AF_UNIX, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT}, {unix.AF_NETLINK, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT},
	} {
		for goarch, table := range seccompArches {
			program := makeProgram(t, goarch, SeccompPolicy{World: WorldProcess, Connects: true})
			if got := answers(t, program, uint32(table.ID), uint32(table.SyscallNames["socket"]), c.family, c.kind, c.protocol); got != c.want {
				t.Errorf("%s: socket(%d, %#x, %d): got %d, want %d", goarch, c.family, c.kind, c.protocol, got, c.want)
			}
		}
	}
}

func TestSeccompAnswersSockets(t *testing.T) {
	t.Parallel()
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	for _, c := range []struct {
		family, kind, protocol uint64
		want                   unix.Errno // with namespaces
	}{
		{unix.AF_UNIX, unix.SOCK_STREAM, 0, 0}, {unix.AF_UNIX, unix.SOCK_SEQPACKET | flags, 0, 0},
		{unix.AF_INET, unix.SOCK_STREAM | flags, unix.IPPROTO_TCP, 0}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, 0},
		{unix.AF_INET, unix.SOCK_RAW, 1, unix.EPERM}, {unix.AF_INET6, unix.SOCK_RAW | flags, unix.IPPROTO_TCP, unix.EPERM},
		{unix.AF_INET, unix.SOCK_PACKET, 0, unix.EPERM}, {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, unix.EPROTONOSUPPORT}, {unix.AF_INET, unix.SOCK_DGRAM, 1, unix.EPROTONOSUPPORT},
		{unix.AF_NETLINK, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT}, {unix.AF_PACKET, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT},
		{unix.AF_ALG, unix.SOCK_SEQPACKET, 0, unix.EAFNOSUPPORT}, {unix.AF_VSOCK, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT},
		{unix.AF_BLUETOOTH, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT}, {unix.AF_XDP, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT},
		{unix.AF_UNSPEC, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT}, {0xffffffff, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT},
	} {
		for goarch, table := range seccompArches {
			number := uint32(table.SyscallNames["socket"])
			if got := answers(t, makeProgram(t, goarch, inNamespaces), uint32(table.ID), number, c.family, c.kind, c.protocol); got != c.want {
				t.Errorf("%s: own network: socket(%d, %#x, %d): got %d, want %d", goarch, c.family, c.kind, c.protocol, got, c.want)
			}
			if got := answers(t, makeProgram(t, goarch, amongProcesses), uint32(table.ID), number, c.family, c.kind, c.protocol); got != unix.EACCES {
				t.Errorf("%s: no network: socket(%d, %#x, %d): got %d", goarch, c.family, c.kind, c.protocol, got)
			}
		}
	}
}

// In every world programs can set only the listed socket options.
func TestSeccompAnswersSocketOptions(t *testing.T) {
	t.Parallel()
	const high = 1 << 40 // bits that the kernel does not read
	type option struct{ level, name uint64 }
	allowed := map[option]bool{}
	for _, o := range []option{
		// Those that asyncio, socketserver, http.server, requests, urllib3, aiohttp, uvicorn, gunicorn, zmq, redis and multiprocessing set.
		{1, 2}, {1, 15}, {1, 9}, {1, 6}, {1, 7}, {1, 8}, {1, 10}, {1, 13}, {1, 16}, {1, 18}, {1, 20}, {1, 21}, {1, 66}, {1, 67},
		{6, 1}, {6, 2}, {6, 3}, {6, 4}, {6, 5}, {6, 6}, {6, 7}, {6, 8}, {6, 9}, {6, 12}, {6, 18}, {6, 25},
		{0, 1}, {0, 2}, {0, 8}, {0, 10}, {0, 11}, {0, 12}, {0, 13}, {0, 24},
		{41, 16}, {41, 23}, {41, 25}, {41, 26}, {41, 49}, {41, 51}, {41, 66}, {41, 67},
	} {
		allowed[o] = true
	}
	refused := []option{
		{6, 31}, {6, 13}, {6, 14}, {6, 19}, {6, 23}, {6, 38}, // TCP_ULP, congestion control, MD5 signatures, repair, fast open, authentication
		{1, 26}, {1, 50}, {1, 51}, {1, 52}, {1, 25}, {1, 36}, {1, 37}, {1, 60}, {1, 46}, // packet filters, devices, marks, timestamps, zero copy, busy polling
		{0, 35}, {0, 39}, {0, 32}, {0, 64}, {0, 65}, {0, 128}, {0, 4}, {0, 3}, {0, 19}, // multicast, netfilter's tables, headers, transparency
		{41, 20}, {41, 64}, {41, 1}, {41, 57}, {41, 54}, // multicast, netfilter's tables, address forms, extension headers
		{17, 100}, {17, 103}, {263, 1}, {279, 1}, {255, 1}, {270, 1}, {282, 1}, {285, 1}, {0xffffffff, 2}, {high | 7, 2}, // UDP_ENCAP and other protocols
	}
	for goarch, table := range seccompArches {
		number := uint32(table.SyscallNames["setsockopt"])
		for _, policy := range []SeccompPolicy{inNamespaces, amongProcesses, {World: WorldProcess, Connects: true}} {
			program := makeProgram(t, goarch, policy)
			for level := range uint64(300) {
				for name := range uint64(140) {
					want := unix.ENOPROTOOPT
					if allowed[option{level, name}] {
						want = 0
					}
					if level > 1 && level != 6 && level != 41 && name > 2 { // other levels have no allowed options, so a few names will do
						continue
					}
					if got := answers(t, program, uint32(table.ID), number, 3, level, name); got != want {
						t.Errorf("%s: option %d of level %d: got %d, want %d", goarch, name, level, got, want)
					}
				}
			}
			for _, o := range refused {
				if got := answers(t, program, uint32(table.ID), number, 3, o.level, o.name); got != unix.ENOPROTOOPT {
					t.Errorf("%s: option %d of level %d: got %d", goarch, o.name, o.level, got)
				}
			}
			if got := answers(t, program, uint32(table.ID), number, 3, high|6, high|31); got != unix.ENOPROTOOPT {
				t.Errorf("%s: TCP_ULP with high bits: got %d", goarch, got)
			}
		}
	}
}

// TestSeccompRefuses fails when a later version of Docker's profile allows one of these calls and the filter does not refuse it.
func TestSeccompRefuses(t *testing.T) {
	t.Parallel()
	names := append(strings.Fields(`ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise keyctl add_key request_key
		userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open bpf name_to_handle_at open_by_handle_at
		mount umount2 move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr pivot_root chroot unshare setns
		lookup_dcookie move_pages migrate_pages fanotify_init fanotify_mark quotactl quotactl_fd syslog acct swapon swapoff reboot
		kexec_load kexec_file_load init_module finit_module delete_module create_module query_module iopl ioperm modify_ldt
		clock_settime settimeofday adjtimex clock_adjtime sethostname setdomainname vhangup nfsservctl uselib ustat sysfs _sysctl`), seccompRefused...)
	for goarch, table := range seccompArches {
		program := makeProgram(t, goarch, inNamespaces)
		for _, name := range names {
			number, ok := table.SyscallNames[name]
			if !ok {
				continue
			}
			if got := answers(t, program, uint32(table.ID), uint32(number)); got != unix.EPERM {
				t.Errorf("%s: %s: got %d", goarch, name, got)
			}
		}
		allowed, newest := dockerAllows(goarch, table)
		for _, name := range seccompRefused {
			if number, ok := table.SyscallNames[name]; ok && allowed[number] || !ok && name != "modify_ldt" && name != "inotify_init" { // amd64 only
				t.Errorf("%s: %s is allowed or no name", goarch, name)
			}
		}
		for number := range uint32(newest + 2) {
			if _, known := table.SyscallNumbers[int(number)]; !known && answers(t, program, uint32(table.ID), number) != unix.ENOSYS {
				t.Errorf("%s: the unassigned number %d exists", goarch, number)
			}
		}
	}
}

func TestSeccompKnowsNoOtherABI(t *testing.T) {
	t.Parallel()
	amd64, arm64 := makeProgram(t, "amd64", inNamespaces), makeProgram(t, "arm64", inNamespaces)
	for _, number := range []uint32{0, 20, 39, 0x40000000, 0x40000000 | 39, 0x40000000 | 520, 471, 4096, 0x7fffffff, 0x80000000, 0xffffffff} {
		if number > 400 {
			if got := answers(t, amd64, auditAMD64, number); got != unix.ENOSYS {
				t.Errorf("amd64: %#x: got %d", number, got)
			}
			if got := answers(t, arm64, auditARM64, number); got != unix.ENOSYS {
				t.Errorf("arm64: %#x: got %d", number, got)
			}
		}
		for _, foreign := range []struct {
			program []byte
			arch    uint32
		}{{amd64, auditI386}, {amd64, auditARM64}, {arm64, auditARM}, {arm64, auditAMD64}, {amd64, 0}} {
			if got := answers(t, foreign.program, foreign.arch, number); got != unix.ENOSYS {
				t.Errorf("architecture %#x: %#x: got %d", foreign.arch, number, got)
			}
		}
	}
	if _, err := SeccompProgram("s390x", amongProcesses); err == nil || !strings.Contains(err.Error(), "no seccomp") {
		t.Errorf("got %v", err)
	}
}

func TestSeccompProgramIsShort(t *testing.T) {
	t.Parallel()
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, policy := range []SeccompPolicy{inNamespaces, amongProcesses} {
			program := makeProgram(t, goarch, policy)
			t.Logf("%s, %+v: %d instructions", goarch, policy, len(program)/8)
			// The kernel allows 4096 instructions (BPF_MAXINSNS). More than 350 would mean that the binary search has become a linear one.
			if len(program)%8 != 0 || len(program)/8 > 350 {
				t.Errorf("%d bytes", len(program))
			}
		}
	}
}

func TestSeccompJumpsFar(t *testing.T) {
	t.Parallel()
	p := seccompAssembler{errnos: make(map[unix.Errno]position)}
	far := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	for range 300 {
		p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO})
	}
	near := p.errno(unix.ENOSYS)
	three := p.jump(bpf.JumpEqual, 3, near, far)
	p.load(seccompDataNumber, p.jump(bpf.JumpEqual, 2, far, three))
	p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO}) // so that the load needs a jump to its destination
	p.load(seccompDataNumber, position(len(p.reversed)-1))
	program, err := p.assemble()
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range map[uint32]unix.Errno{2: 0, 3: unix.ENOSYS, 4: 0} {
		if got := answers(t, program, auditAMD64, number); got != want {
			t.Errorf("%d: got %d, want %d", number, got, want)
		}
	}
}

// Programs may call memfd_create only where Caddy counts memfds. Extended attributes, which it cannot count, are refused there.
func TestSeccompLeavesMemfdsToTheListener(t *testing.T) {
	t.Parallel()
	counted := SeccompPolicy{World: WorldNamespaces, memfds: true}
	for goarch, table := range seccompArches {
		for name, want := range map[string]unix.Errno{"memfd_create": 0, "memfd_secret": unix.EPERM, "fsetxattr": unix.EOPNOTSUPP, "setxattr": unix.EOPNOTSUPP, "lsetxattr": unix.EOPNOTSUPP} {
			number := uint32(table.SyscallNames[name])
			if got := answers(t, makeProgram(t, goarch, counted), uint32(table.ID), number); got != want {
				t.Errorf("%s: %s: got %d, want %d", goarch, name, got, want)
			}
		}
		if got := answers(t, makeProgram(t, goarch, inNamespaces), uint32(table.ID), uint32(table.SyscallNames["memfd_create"])); got != unix.EPERM {
			t.Errorf("%s: memfds that nobody counts: got %d", goarch, got)
		}
	}
}

func TestPlanHasMemfdsWhereTheyAreCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		world           World
		release         string
		seccomp, notify bool
		want            bool
	}{
		{WorldNamespaces, "6.1.0", true, true, true}, {WorldNamespaces, "5.19.0", true, true, true},
		{WorldNamespaces, "5.18.0", true, true, false}, {WorldNamespaces, "6.1.0", true, false, false}, {WorldNamespaces, "6.1.0", false, true, false},
		{WorldProcess, "6.12.0", true, true, false},
	} {
		sys := describedSystem(1001, []string{"/usr"}, nil)
		sys.release, sys.Seccomp, sys.notify, sys.goarch = c.release, c.seccomp, c.notify, "amd64"
		p, err := New(testLimits, Sources{Executable: "/usr/bin/python3"}, sys, c.world, "/tmp/x")
		if err != nil || (p.Asking != "") != c.want {
			t.Errorf("%+v: got %q, %v", c, p.Asking, err)
		}
	}
}
