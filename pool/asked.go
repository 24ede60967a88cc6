package pool

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// asked answers the system calls that the seccomp filter of a lane reports to Caddy (seccomp_unotify(2)). Its goroutine, serve, ends when
// the last process with the filter has ended, or with close. It is nil for a lane that asks nothing.
type asked struct {
	listener *os.File
	memfds   memfds
	sessions sessions
}

const (
	seccompIoctlAddFD   = 0x40182103 // linux/seccomp.h: SECCOMP_IOCTL_NOTIF_ADDFD
	seccompContinueFlag = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// newAsked takes over the descriptor listener. lane is the lane's pid, and uid the owner of its memfds, as Caddy sees them.
func newAsked(listener, lane, uid int) *asked {
	_ = unix.SetNonblock(listener, true) // for the runtime's poller; reading blocks all the same
	a := &asked{listener: os.NewFile(uintptr(listener), "seccomp listener"), memfds: memfds{uid: uid}, sessions: sessions{lane: lane}}
	go a.serve()
	return a
}

func (a *asked) serve() {
	raw, err := a.listener.SyscallConn()
	if err != nil {
		return
	}
	for over := false; !over; {
		err := raw.Read(func(fd uintptr) bool {
			ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(ready, 0); err != nil || n == 0 {
				return false
			}
			if over = ready[0].Revents&unix.POLLIN == 0; !over {
				a.answer(fd)
			}
			return true
		})
		if err != nil {
			return
		}
	}
}

// seccompNotification is struct seccomp_notif, with struct seccomp_data in it.
type seccompNotification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	pointer    uint64
	arguments  [6]uint64
}

type seccompResponse struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

type seccompAddFD struct {
	id                          uint64
	flags, source, at, fileMode uint32
}

func (a *asked) answer(listener uintptr) {
	var call seccompNotification
	if ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&call)) != 0 {
		return // the process that asked has ended
	}
	response := seccompResponse{id: call.id}
	if call.number == unix.SYS_SETSID {
		if a.sessions.grant(int(call.pid)) {
			response.flags = seccompContinueFlag
		} else {
			response.errno = -int32(unix.EPERM)
		}
	} else if errno := a.memfds.give(listener, call.id, int(uint32(call.arguments[1]))); errno == 0 {
		return // it has answered
	} else {
		response.errno = -int32(errno)
	}
	_ = ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response)) // refused where who asked has ended
}

func ioctl(fd uintptr, request uint, argument unsafe.Pointer) unix.Errno {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(argument)); errno != unix.EINTR {
			return errno
		}
	}
}

// memfdBytes is what the memfds of the run hold.
func (a *asked) memfdBytes() int64 {
	if a == nil {
		return 0
	}
	return a.memfds.bytes()
}

// endRun forgets what the run in the lane, which is over, was given, and returns its memfds. The caller closes them once the end of the
// run is reported: the kernel frees their memory then, which takes time.
func (a *asked) endRun() []int {
	if a == nil {
		return nil
	}
	a.sessions.forget()
	return a.memfds.take()
}

func (a *asked) close() {
	if a != nil {
		_ = a.listener.Close()
		process.CloseAll(a.endRun())
	}
}
