package confine

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// SeccompPolicy is what the filter depends on besides the architecture.
type SeccompPolicy struct {
	// World decides about sockets, other than pairs of unix sockets, and about signals. In namespaces all that a socket
	// reaches is the sandbox's own, and process 1 is the lane; without them every socket is the host's.
	World World
	// ownsFiles says that user code's id owns files outside of its scratch. Landlock does not govern their modes and
	// times, so calls that set them do nothing. They do not fail, for then no file could be copied with its mode.
	OwnsFiles bool
	// connects lets an installer without namespaces make TCP sockets. Landlock says which port they may reach.
	Connects bool
	// memfds lets a program ask for memfds. Another filter then has Caddy make them.
	memfds bool
	// asks lets calls that name a path, and those that give a unix socket an address, be answered by the lane (view.go).
	asks bool
}

// seccompArches have a table of system calls, little-endian arguments and the flags of clone in its first argument.
var seccompArches = map[string]*arch.Info{"amd64": arch.X86_64, "arm64": arch.AARCH64}

// seccompRefused are calls that Docker allows and Python code does not need.
var seccompRefused = []string{
	// Reach into other processes.
	"ptrace", "process_vm_readv", "process_vm_writev",
	// Leave objects behind for whoever runs next.
	"shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl",
	"mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
	// Name files and mounts past the path that leads to them.
	"name_to_handle_at", "listmount", "statmount", "fanotify_mark",
	// Show what another run does with a file that all may read.
	"inotify_init", "inotify_init1", "inotify_add_watch",
	// Hold memory that is in no size of a process. Where Caddy can count memfds it makes them (memfd.go).
	"memfd_create", "memfd_secret",
	"process_mrelease",
	// Belong to the system's owner, or to programs of another age.
	"adjtimex", "clock_adjtime", "modify_ldt",
}

// seccompRule allows calls whose arguments fulfil every condition.
type seccompRule struct {
	names      []string
	conditions []seccompCondition
}

// seccompCondition compares the low half of an argument, which is all that the kernel reads of these arguments.
type seccompCondition struct {
	argument int
	mask     uint32 // the bits that count; 0 for all
	values   []uint32
	except   bool       // fulfilled by any other value than these
	errno    unix.Errno // the answer when it is not fulfilled
}

const (
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME
	socketKind = 0xf // SOCK_TYPE_MASK: the rest of the argument is SOCK_NONBLOCK and SOCK_CLOEXEC

	prioProcess      = 0 // setpriority(2)
	ioprioProcess    = 1 // ioprio_set(2)
	queryPersonality = 0xffffffff
	everyProcess     = 0xffffffff // kill(2): -1
	fsSetFlags       = 0x40086602 // linux/fs.h: FS_IOC_SETFLAGS
	fsSetXattr       = 0x401c5820 // FS_IOC_FSSETXATTR

	seccompDataNumber = 0 // offsets in struct seccomp_data, seccomp(2)
	seccompDataArch   = 4
	seccompDataArgs   = 16
)

// seccompRules are the calls that depend on their arguments. They replace what the profile says of the same calls.
func seccompRules(policy SeccompPolicy) []seccompRule {
	thisProcess := []uint32{0}
	rules := []seccompRule{
		{[]string{"clone"}, []seccompCondition{{mask: newNamespaces, values: []uint32{0}, errno: unix.EPERM}}},
		// Keys pressed for a terminal, the console's own menu, and attributes of files, which an open for reading may set.
		{[]string{"ioctl"}, []seccompCondition{{argument: 1, values: []uint32{unix.TIOCSTI, unix.TIOCLINUX, fsSetFlags, fsSetXattr}, except: true, errno: unix.EPERM}}},
		// Both tell when somebody else opens a file.
		{[]string{"fcntl"}, []seccompCondition{{argument: 1, values: []uint32{unix.F_NOTIFY, unix.F_SETLEASE}, except: true, errno: unix.EPERM}}},
		{[]string{"personality"}, []seccompCondition{{values: []uint32{0, queryPersonality}, errno: unix.EPERM}}},
		// User code may narrow its filter further; a listener would let one process answer for the calls of another.
		{[]string{"seccomp"}, []seccompCondition{{argument: 1, mask: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, values: []uint32{0}, errno: unix.EPERM}}},
		// The sandbox's own processes may have the id of user code, and the kernel asks for no more here. A filter
		// knows no pids, so a thread that is named by its id is refused too: OpenMP goes on without a place for it.
		{[]string{"prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"}, []seccompCondition{{values: thisProcess, errno: unix.EPERM}}},
		{[]string{"setpriority"}, []seccompCondition{{values: []uint32{prioProcess}, errno: unix.EPERM}, {argument: 1, values: thisProcess, errno: unix.EPERM}}},
		{[]string{"ioprio_set"}, []seccompCondition{{values: []uint32{ioprioProcess}, errno: unix.EPERM}, {argument: 1, values: thisProcess, errno: unix.EPERM}}},
		{[]string{"socketpair"}, []seccompCondition{{values: []uint32{unix.AF_UNIX}, errno: unix.EAFNOSUPPORT}}},
	}
	refuse := func(errno unix.Errno, names ...string) {
		rules = append(rules, seccompRule{names, []seccompCondition{{errno: errno}}})
	}
	if policy.World == WorldNamespaces {
		rules = append(rules,
			// The errnos of a kernel without the family, without the right to raw sockets, without the protocol. glibc's
			// getaddrinfo assumes IPv4 and IPv6 when it gets no netlink socket.
			seccompRule{[]string{"socket"}, []seccompCondition{
				{values: []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}, errno: unix.EAFNOSUPPORT},
				{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET}, errno: unix.EPERM},
				// Others load modules into the kernel on demand.
				{argument: 2, values: []uint32{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP}, errno: unix.EPROTONOSUPPORT},
			}},
			// The lane, which has user code's id.
			seccompRule{[]string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open"},
				[]seccompCondition{{values: []uint32{1}, except: true, errno: unix.EPERM}}})
	} else {
		if policy.Connects {
			rules = append(rules, seccompRule{[]string{"socket"}, []seccompCondition{
				{values: []uint32{unix.AF_INET}, errno: unix.EAFNOSUPPORT},
				{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM}, errno: unix.EPERM},
				{argument: 2, values: []uint32{0, unix.IPPROTO_TCP}, errno: unix.EPROTONOSUPPORT},
			}})
		} else if policy.asks {
			// Kinds that have no address in a message, which a filter could not see. Where they connect the lane decides.
			rules = append(rules, seccompRule{[]string{"socket"}, []seccompCondition{
				{values: []uint32{unix.AF_UNIX}, errno: unix.EACCES},
				{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}, errno: unix.EACCES},
				{argument: 2, values: []uint32{0}, errno: unix.EPROTONOSUPPORT},
			}})
		} else {
			refuse(unix.EACCES, "socket") // Python shows PermissionError: "Permission denied"
		}
		// Landlock holds such a signal back from each process, and the kernel then says that it was sent.
		rules = append(rules, seccompRule{[]string{"kill"}, []seccompCondition{{values: []uint32{everyProcess}, except: true, errno: unix.EPERM}}})
	}
	if policy.OwnsFiles {
		refuse(0, "chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat")
		refuse(unix.EPERM, "chown", "lchown", "fchown", "fchownat") // as ever without privilege
		refuse(unix.EOPNOTSUPP, "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat")
	} else if policy.memfds {
		// Attributes of a memfd have no bound and no size. Scratch, a tmpfs as memfds are, has had some since Linux 6.6 only.
		refuse(unix.EOPNOTSUPP, "setxattr", "lsetxattr", "fsetxattr", "setxattrat")
	}
	return rules
}

// SeccompProgram assembles the filter of user code as an array of struct sock_filter, to be loaded after no_new_privs.
// It allows what Docker allows to a container without capabilities, less seccompRefused. The answer to anything else is
// an errno, since libraries probe and fall back; a call that is unknown here does not exist, so that a newer libc does
// without it.
func SeccompProgram(goarch string, policy SeccompPolicy) ([]byte, error) {
	table, ok := seccompArches[goarch]
	if !ok {
		return nil, fmt.Errorf("no seccomp filter for %s: there is one for amd64 and arm64", goarch)
	}
	allowed, newest := dockerAllows(goarch, table)
	allowed[table.SyscallNames["memfd_create"]] = policy.memfds

	p := seccompAssembler{errnos: make(map[unix.Errno]position)}
	allow := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	verdicts := make([]position, newest+2)
	for number := range verdicts {
		name := table.SyscallNumbers[number]
		switch {
		case allowed[number]:
			verdicts[number] = allow
		case name == "" || number > newest || name == "clone3": // whose flags lie behind a pointer; libc goes on to clone
			verdicts[number] = p.errno(unix.ENOSYS)
		default:
			verdicts[number] = p.errno(unix.EPERM)
		}
	}
	for _, rule := range seccompRules(policy) {
		verdict := allow
		for _, c := range slices.Backward(rule.conditions) {
			verdict = p.condition(c, verdict, p.errno(c.errno))
		}
		for _, name := range rule.names {
			if number, ok := table.SyscallNames[name]; ok {
				verdicts[number] = verdict
			}
		}
	}
	verdicts[table.SyscallNames["setsockopt"]] = p.socketOptions(allow)
	if policy.asks {
		p.ask(table, verdicts, allow, policy.OwnsFiles)
	}

	// The last run has no end: the calls of x32, which share their architecture's number, lie in it.
	runs := []numberRun{{0, verdicts[0]}}
	for number, verdict := range verdicts {
		if verdict != runs[len(runs)-1].verdict {
			runs = append(runs, numberRun{uint32(number), verdict})
		}
	}
	native := p.load(seccompDataNumber, p.search(runs))
	p.load(seccompDataArch, p.jump(bpf.JumpEqual, uint32(table.ID), native, p.errno(unix.ENOSYS)))
	return p.assemble()
}

// hasSeccomp says whether the kernel runs filters that answer with an errno.
func hasSeccomp() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return err == 0
}

// dockerAllows returns the numbers that the profile allows whatever their arguments, for a process without capabilities,
// and the newest number that it knows.
func dockerAllows(goarch string, table *arch.Info) (allowed map[int]bool, newest int) {
	allowed = make(map[int]bool)
	for _, group := range seccomp.DefaultProfile().Syscalls {
		// MinKernel is not looked at: every kernel that this runs on is newer than what it asks for.
		if in := group.Includes; in != nil && (len(in.Caps) > 0 || len(in.Arches) > 0 && !slices.Contains(in.Arches, goarch)) {
			continue
		}
		if out := group.Excludes; out != nil && slices.Contains(out.Arches, goarch) {
			continue
		}
		for _, name := range group.Names {
			number, ok := table.SyscallNames[name]
			if !ok && name == "newfstatat" {
				number, ok = table.SyscallNames["fstatat"] // as the table of arm64 has it
			}
			if !ok {
				continue // of another architecture
			}
			newest = max(newest, number)
			if group.Action == specs.ActAllow && len(group.Args) == 0 {
				allowed[number] = true
			}
		}
	}
	for _, name := range seccompRefused {
		if number, ok := table.SyscallNames[name]; ok {
			delete(allowed, number)
		}
	}
	return allowed, newest
}

// seccompAssembler puts a filter together from its end: jumps only lead forward, so what one leads to is there already.
//
// elastic/go-seccomp-bpf gives the tables of system calls but not the program. It compares one number after the other,
// and the kernel tries a new filter on every number (Linux 5.11 and later), so that loading would take six times as
// long; and it assembles for the running architecture only, knows no masked comparison and no errno but EPERM.
type seccompAssembler struct {
	reversed []bpf.Instruction
	errnos   map[unix.Errno]position
}

// position counts the instructions from one to the end of the program, itself included.
type position int

// numberRun is a range of system calls with one verdict, up to where the next run begins.
type numberRun struct {
	first   uint32
	verdict position
}

func (p *seccompAssembler) put(i bpf.Instruction) position {
	p.reversed = append(p.reversed, i)
	return position(len(p.reversed))
}

// distance is what an instruction that is put next has to skip to reach a position.
func (p *seccompAssembler) distance(to position) uint32 { return uint32(len(p.reversed) - int(to)) }

func (p *seccompAssembler) errno(e unix.Errno) position {
	if _, ok := p.errnos[e]; !ok {
		p.errnos[e] = p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)})
	}
	return p.errnos[e]
}

// load loads 32 bits of struct seccomp_data and goes on at a position.
func (p *seccompAssembler) load(offset uint32, then position) position {
	if p.distance(then) > 0 {
		p.put(bpf.Jump{Skip: p.distance(then)})
	}
	return p.put(bpf.LoadAbsolute{Off: offset, Size: 4})
}

// jump compares what is loaded. A conditional jump has 8 bits for its distances; the longer way is an instruction more.
func (p *seccompAssembler) jump(test bpf.JumpTest, value uint32, yes, no position) position {
	if p.distance(no) > math.MaxUint8 {
		no = p.put(bpf.Jump{Skip: p.distance(no)})
	}
	if p.distance(yes) > math.MaxUint8 {
		yes = p.put(bpf.Jump{Skip: p.distance(yes)})
	}
	return p.put(bpf.JumpIf{Cond: test, Val: value, SkipTrue: uint8(p.distance(yes)), SkipFalse: uint8(p.distance(no))})
}

// condition goes on where c leads.
func (p *seccompAssembler) condition(c seccompCondition, fulfilled, refused position) position {
	match, other := fulfilled, refused
	if c.except {
		match, other = refused, fulfilled
	}
	if len(c.values) == 0 {
		return other
	}
	for _, value := range slices.Backward(c.values) {
		other = p.jump(bpf.JumpEqual, value, match, other)
	}
	if c.mask != 0 {
		other = p.put(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask})
	}
	return p.load(uint32(seccompDataArgs+8*c.argument), other)
}

// search finds the run that a number lies in, halving them at each step.
func (p *seccompAssembler) search(runs []numberRun) position {
	if len(runs) == 1 {
		return runs[0].verdict
	}
	middle := len(runs) / 2
	above := p.search(runs[middle:])
	below := p.search(runs[:middle])
	return p.jump(bpf.JumpGreaterOrEqual, runs[middle].first, above, below)
}

func (p *seccompAssembler) assemble() ([]byte, error) {
	instructions := slices.Clone(p.reversed)
	slices.Reverse(instructions)
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return nil, fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	program := make([]byte, 0, 8*len(raw))
	for _, i := range raw {
		program = binary.LittleEndian.AppendUint16(program, i.Op)
		program = append(program, i.Jt, i.Jf)
		program = binary.LittleEndian.AppendUint32(program, i.K)
	}
	return program, nil
}
