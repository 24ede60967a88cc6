package confine

import (
	"encoding/hex"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// notifyMajor and notifyMinor are the first Linux version with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: only a fatal signal interrupts a
// reported call. Without that flag a process could get the memfd, be interrupted by a signal, and make the call again.
const notifyMajor, notifyMinor = 5, 19

// hasNotify says whether seccomp filters can report system calls to a listener (seccomp_unotify(2)).
func hasNotify() bool {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return err == 0
}

// askedOfCaddy are the system calls that lanes report to Caddy: it makes memfds, to count what they hold, and bounds the sessions of a run,
// each of which the kernel may give an equal share of the processors (autogroups in sched(7)).
var askedOfCaddy = []string{"memfd_create", "setsid"}

// askingProgram returns the filter that reports askedOfCaddy to its listener and allows all other system calls.
func askingProgram(table *arch.Info) ([]byte, error) {
	p := seccompAssembler{errnos: map[unix.Errno]position{}}
	next := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	allow, ask := next, p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	for _, name := range askedOfCaddy {
		next = p.jump(bpf.JumpEqual, uint32(table.SyscallNames[name]), ask, next)
	}
	number := p.load(seccompDataNumber, next)
	p.load(seccompDataArch, p.jump(bpf.JumpEqual, uint32(table.ID), number, allow)) // the filter of user code refuses other architectures
	return p.assemble()
}

// askingFilter returns that filter in hexadecimal; "" where nothing is asked, and programs get no memfds. Without namespaces there is none:
// a process may have only one listener, and the filter that reports paths needs it (view.go).
func askingFilter(sys System, w World) (string, error) {
	if w != WorldNamespaces || !sys.Seccomp || !sys.notify || !sys.atLeast(notifyMajor, notifyMinor) {
		return "", nil
	}
	program, err := askingProgram(seccompArches[sys.goarch])
	return hex.EncodeToString(program), err
}
