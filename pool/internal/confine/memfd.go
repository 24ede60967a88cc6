package confine

import (
	"encoding/hex"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The kernel's version that lets nothing but its end interrupt who has asked (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV): otherwise a
// process that a signal interrupts could have the descriptor already, and ask again.
const notifyMajor, notifyMinor = 5, 19

// hasNotify says whether the kernel asks a listener about calls.
func hasNotify() bool {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return err == 0
}

// memfdProgram is the filter that asks about memfd_create and about nothing else.
func memfdProgram(table *arch.Info) ([]byte, error) {
	p := seccompAssembler{errnos: map[unix.Errno]position{}}
	allow := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	ask := p.put(bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	number := p.load(seccompDataNumber, p.jump(bpf.JumpEqual, uint32(table.SyscallNames["memfd_create"]), ask, allow))
	p.load(seccompDataArch, p.jump(bpf.JumpEqual, uint32(table.ID), number, allow)) // others are for the filter of user code
	return p.assemble()
}

// memfdFilter is the filter of lanes that asks Caddy about memfds, "" where programs have none. Without namespaces others need
// the one listener that a process may have.
func memfdFilter(sys System, w World) (string, error) {
	if w != WorldNamespaces || !sys.Seccomp || !sys.notify || !sys.atLeast(notifyMajor, notifyMinor) {
		return "", nil
	}
	program, err := memfdProgram(seccompArches[sys.goarch])
	return hex.EncodeToString(program), err
}
