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

// memfdProgram returns the filter that reports memfd_create to its listener and allows all other system calls.
func memfdProgram(table *arch.Info) ([]byte, error) {
	p := seccompAssembler{errnos: map[unix.Errno]position{}}
	allow := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	ask := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	number := p.load(seccompDataNumber, p.jump(bpf.JumpEqual, uint32(table.SyscallNames["memfd_create"]), ask, allow))
	p.load(seccompDataArch, p.jump(bpf.JumpEqual, uint32(table.ID), number, allow)) // the filter of user code refuses other architectures
	return p.assemble()
}

// memfdFilter returns, in hexadecimal, the filter with which lanes report memfd_create to Caddy; "" where programs get no memfds. Without
// namespaces there is none: a process may have only one listener, and the filter that reports paths needs it (view.go).
func memfdFilter(sys System, w World) (string, error) {
	if w != WorldNamespaces || !sys.Seccomp || !sys.notify || !sys.atLeast(notifyMajor, notifyMinor) {
		return "", nil
	}
	program, err := memfdProgram(seccompArches[sys.goarch])
	return hex.EncodeToString(program), err
}
