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

// SeccompPolicy says what a filter depends on besides the architecture. The zero value is not valid: World must be set.
type SeccompPolicy struct {
	// World decides about sockets (except socketpair) and signals. With namespaces a socket reaches only the sandbox's own network, and
	// process 1 is the lane. Without them sockets would reach the host's network.
	World World
	// OwnsFiles says that user code's id owns files outside of scratch. Landlock does not govern their modes and times, so with asks the lane
	// sets them, in scratch only. Otherwise the filter makes calls that set them do nothing. They still report success, since otherwise no
	// program could copy a file with its mode.
	OwnsFiles bool
	// connects lets an installer without namespaces make TCP sockets. Landlock says which port they may reach.
	Connects bool
	// memfds lets programs call memfd_create. The lane's filter then reports the call to Caddy, which makes the memfd (asked.go).
	memfds bool
	// asks makes the filter report calls that name a path or the address of a unix socket to the lane (view.go).
	asks bool
}

// seccompArches are the architectures, by GOARCH, for which there are filters. The filters rely on little-endian arguments and on clone(2)
// having its flags as first argument.
var seccompArches = map[string]*arch.Info{"amd64": arch.X86_64, "arm64": arch.AARCH64}

// seccompRefused are system calls that Docker's profile allows and the filter refuses, since Python programs do not need them.
var seccompRefused = []string{
	// They read or change other processes.
	"ptrace", "process_vm_readv", "process_vm_writev",
	// They make objects that outlive a run, so that the next one could find them.
	"shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl",
	"mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
	// They name files and mounts without a path.
	"name_to_handle_at", "listmount", "statmount", "fanotify_mark",
	// They show when another run uses a file that all runs may read.
	"inotify_init", "inotify_init1", "inotify_add_watch",
	// They hold memory that no process's size includes. SeccompPolicy.memfds allows memfd_create where Caddy counts that memory.
	"memfd_create", "memfd_secret", "vmsplice",
	"process_mrelease",
	// They administer the system, or serve obsolete programs.
	"adjtimex", "clock_adjtime", "modify_ldt",
}

// seccompRule allows the named calls if their arguments fulfil every condition. The first condition that fails gives the errno.
type seccompRule struct {
	names      []string
	conditions []seccompCondition
}

// seccompCondition compares the low 32 bits of an argument; the kernel uses no others of the arguments in seccompRules.
type seccompCondition struct {
	argument int
	mask     uint32 // the bits that are compared; 0 for all
	values   []uint32
	except   bool       // fulfilled by all values except these
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

	// The second byte of a request of ioctl(2) names the driver (linux/ioctl.h).
	ioctlDriver    = 0xff00
	ioctlTerminals = 0x5400 // and what every descriptor has, such as FIONBIO
	ioctlSockets   = 0x8900

	seccompDataNumber = 0 // offsets in struct seccomp_data, seccomp(2)
	seccompDataArch   = 4
	seccompDataArgs   = 16
)

// seccompRules returns the rules for calls that depend on their arguments or on the policy. They replace the profile's rules for these
// calls.
func seccompRules(policy SeccompPolicy) []seccompRule {
	thisProcess := []uint32{0}
	rules := []seccompRule{
		{[]string{"clone"}, []seccompCondition{{mask: newNamespaces, values: []uint32{0}, errno: unix.EPERM}}},
		// File systems have requests that set attributes of files through a descriptor that is open for reading only. ENOTTY is the
		// answer of a descriptor that does not know a request. TIOCSTI types input into a terminal, TIOCLINUX controls the console.
		{[]string{"ioctl"}, []seccompCondition{
			{argument: 1, mask: ioctlDriver, values: []uint32{ioctlTerminals, ioctlSockets}, errno: unix.ENOTTY},
			{argument: 1, values: []uint32{unix.TIOCSTI, unix.TIOCLINUX}, except: true, errno: unix.EPERM},
		}},
		// F_NOTIFY and F_SETLEASE tell when another process opens a file. The hints stay with a file that is open for reading only.
		{[]string{"fcntl"}, []seccompCondition{{argument: 1, errno: unix.EPERM, except: true,
			values: []uint32{unix.F_NOTIFY, unix.F_SETLEASE, unix.F_SET_RW_HINT, unix.F_SET_FILE_RW_HINT}}}},
		{[]string{"personality"}, []seccompCondition{{values: []uint32{0, queryPersonality}, errno: unix.EPERM}}},
		// User code may add filters. A listener is refused, since it would let one process answer the calls of another.
		{[]string{"seccomp"}, []seccompCondition{{argument: 1, mask: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, values: []uint32{0}, errno: unix.EPERM}}},
		// These calls may change any process with the caller's uid, and the lane can have user code's uid. A filter cannot tell pids
		// apart, so only 0, the caller, is allowed. OpenMP, which names its own threads by id, goes on without binding them to processors.
		{[]string{"prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"}, []seccompCondition{{values: thisProcess, errno: unix.EPERM}}},
		{[]string{"setpriority"}, []seccompCondition{{values: []uint32{prioProcess}, errno: unix.EPERM}, {argument: 1, values: thisProcess, errno: unix.EPERM}}},
		{[]string{"ioprio_set"}, []seccompCondition{{values: []uint32{ioprioProcess}, errno: unix.EPERM}, {argument: 1, values: thisProcess, errno: unix.EPERM}}},
	}
	pair := []seccompCondition{{values: []uint32{unix.AF_UNIX}, errno: unix.EAFNOSUPPORT}}
	refuse := func(errno unix.Errno, names ...string) {
		rules = append(rules, seccompRule{names, []seccompCondition{{errno: errno}}})
	}
	if policy.World == WorldNamespaces {
		rules = append(rules,
			seccompRule{[]string{"socketpair"}, pair},
			// The errnos are those of a kernel without the family, of a process without CAP_NET_RAW, and of a kernel without the protocol.
			// Without a netlink socket glibc's getaddrinfo assumes that the machine has IPv4 and IPv6.
			seccompRule{[]string{"socket"}, []seccompCondition{
				{values: []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}, errno: unix.EAFNOSUPPORT},
				{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET}, errno: unix.EPERM},
				// Other protocols can make the kernel load modules.
				{argument: 2, values: []uint32{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP}, errno: unix.EPROTONOSUPPORT},
			}},
			// Process 1 is the lane, which has user code's uid and must not be signalled.
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
			// Other types of sockets are refused, since sendmsg(2) may give an address, which no filter can read. Streams get an address
			// by bind and connect only, which the lane answers.
			rules = append(rules, seccompRule{[]string{"socket"}, []seccompCondition{
				{values: []uint32{unix.AF_UNIX}, errno: unix.EACCES},
				{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM}, errno: unix.EACCES},
				{argument: 2, values: []uint32{0}, errno: unix.EPROTONOSUPPORT},
			}})
		} else {
			refuse(unix.EACCES, "socket") // Python shows PermissionError: "Permission denied"
		}
		// A sender that waits until there is room for its packet keeps the descriptors in it from being counted (SCM_RIGHTS in unix(7)),
		// and the count is one of the user. With namespaces, senders do not wait (confine.py).
		pair = append(pair, seccompCondition{argument: 1, mask: socketKind, values: []uint32{unix.SOCK_STREAM}, errno: unix.EACCES})
		rules = append(rules, seccompRule{[]string{"socketpair"}, pair},
			// FALLOC_FL_KEEP_SIZE takes blocks that RLIMIT_FSIZE does not bound; with a hole it gives some back.
			seccompRule{[]string{"fallocate"}, []seccompCondition{
				{argument: 1, values: []uint32{0, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE}, errno: unix.EOPNOTSUPP}}})
		// kill(-1): Landlock keeps the signal from every process outside of the domain, but the kernel would still report success.
		rules = append(rules, seccompRule{[]string{"kill"}, []seccompCondition{{values: []uint32{everyProcess}, except: true, errno: unix.EPERM}}})
	}
	if policy.OwnsFiles {
		// Where the lane answers these, ask replaces the verdicts.
		refuse(0, "chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat")
		refuse(unix.EPERM, "chown", "lchown", "fchown", "fchownat") // as the kernel answers without privilege
		refuse(unix.EOPNOTSUPP, "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat")
	} else if policy.memfds {
		// The memory of a memfd's extended attributes is neither bounded nor counted. Programs do not miss them: scratch, also a tmpfs, has
		// supported user attributes only since Linux 6.6.
		refuse(unix.EOPNOTSUPP, "setxattr", "lsetxattr", "fsetxattr", "setxattrat")
	}
	return rules
}

// SeccompProgram assembles the filter of user code as an array of struct sock_filter (seccomp(2)), to be loaded after no_new_privs is set.
// It allows what Docker's default profile (github.com/moby/profiles) allows without capabilities, less seccompRefused. It answers other
// calls with an errno, since libraries probe and fall back. A call that the profile does not know gets ENOSYS, so that a newer libc does
// without it. The error says that goarch has no filter.
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
		case name == "" || number > newest || name == "clone3": // clone3's flags are behind a pointer; libc then uses clone
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
	if prctl := table.SyscallNames["prctl"]; policy.World == WorldProcess {
		// A process that is not dumpable hides its memory from a Caddy that has no privilege.
		hide := p.condition(seccompCondition{argument: 1, values: []uint32{0}}, p.errno(unix.EPERM), verdicts[prctl])
		verdicts[prctl] = p.condition(seccompCondition{values: []uint32{unix.PR_SET_DUMPABLE}}, hide, verdicts[prctl])
	}
	if policy.asks {
		p.ask(table, verdicts, allow, policy.OwnsFiles)
	}

	// The last run has no upper end. It holds the calls of the x32 ABI, whose architecture is that of amd64, and answers them with ENOSYS.
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

// hasSeccomp says whether the kernel supports seccomp filters that answer with an errno.
func hasSeccomp() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return err == 0
}

// dockerAllows returns the numbers of the calls that Docker's profile allows without capabilities and whatever their arguments, less
// seccompRefused, and the highest number that the profile knows.
func dockerAllows(goarch string, table *arch.Info) (allowed map[int]bool, newest int) {
	allowed = make(map[int]bool)
	for _, group := range seccomp.DefaultProfile().Syscalls {
		// MinKernel is ignored: every kernel that Caddy runs on is newer than the versions in it.
		if in := group.Includes; in != nil && (len(in.Caps) > 0 || len(in.Arches) > 0 && !slices.Contains(in.Arches, goarch)) {
			continue
		}
		if out := group.Excludes; out != nil && slices.Contains(out.Arches, goarch) {
			continue
		}
		for _, name := range group.Names {
			number, ok := table.SyscallNames[name]
			if !ok && name == "newfstatat" {
				number, ok = table.SyscallNames["fstatat"] // its name in the table for arm64
			}
			if !ok {
				continue // a call of another architecture
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

// seccompAssembler assembles a filter from its last instruction to its first. Jumps in a filter only lead forward, so the destination of a
// jump is always assembled already.
//
// Of elastic/go-seccomp-bpf only the tables of system calls are used, not its assembler. That compares one number after the other, and the
// kernel runs a new filter for every number when it is loaded (Linux 5.11 and later), which would take six times as long. It also assembles
// for the running architecture only, and has no masked comparison and no errno but EPERM.
type seccompAssembler struct {
	reversed []bpf.Instruction
	errnos   map[unix.Errno]position
}

// position names an instruction by the number of instructions from it to the end of the program, itself included.
type position int

// numberRun is a range of system call numbers with the same verdict. It ends where the next run begins.
type numberRun struct {
	first   uint32
	verdict position
}

func (p *seccompAssembler) put(i bpf.Instruction) position {
	p.reversed = append(p.reversed, i)
	return position(len(p.reversed))
}

// distance returns how many instructions the one that is put next must skip to reach a position.
func (p *seccompAssembler) distance(to position) uint32 { return uint32(len(p.reversed) - int(to)) }

func (p *seccompAssembler) errno(e unix.Errno) position {
	if _, ok := p.errnos[e]; !ok {
		p.errnos[e] = p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)})
	}
	return p.errnos[e]
}

// load puts an instruction that loads 32 bits of struct seccomp_data and goes on at then.
func (p *seccompAssembler) load(offset uint32, then position) position {
	if p.distance(then) > 0 {
		p.put(bpf.Jump{Skip: p.distance(then)})
	}
	return p.put(bpf.LoadAbsolute{Off: offset, Size: 4})
}

// jump puts a conditional jump that compares the loaded value. Its distances have 8 bits, so a longer one takes a further jump.
func (p *seccompAssembler) jump(test bpf.JumpTest, value uint32, yes, no position) position {
	if p.distance(no) > math.MaxUint8 {
		no = p.put(bpf.Jump{Skip: p.distance(no)})
	}
	if p.distance(yes) > math.MaxUint8 {
		yes = p.put(bpf.Jump{Skip: p.distance(yes)})
	}
	return p.put(bpf.JumpIf{Cond: test, Val: value, SkipTrue: uint8(p.distance(yes)), SkipFalse: uint8(p.distance(no))})
}

// condition puts the test of c, which goes on at fulfilled or refused.
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

// search puts a binary search for the run that holds the loaded number, which goes on at its verdict.
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
