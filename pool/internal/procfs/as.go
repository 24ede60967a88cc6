package procfs

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// As calls look while the calling thread has the uid and gid, both id, for access to files (setfsuid(2)). The kernel shows the memory and
// the descriptors of a process to whoever has its ids (ptrace(2), access mode checking), or CAP_SYS_PTRACE, which root has not in a
// container. With id 0, and without the right to change ids, it just calls look.
func As(id int, look func()) {
	if id == 0 {
		look()
		return
	}
	runtime.LockOSThread()
	gid, _ := unix.SetfsgidRetGid(id)
	uid, _ := unix.SetfsuidRetUid(id)
	look()
	_, _ = unix.SetfsuidRetUid(uid)
	_, _ = unix.SetfsgidRetGid(gid)
	if now, _ := unix.SetfsuidRetUid(-1); now == uid { // -1 changes nothing
		runtime.UnlockOSThread() // else the thread ends with the goroutine, so that nothing else runs on it
	}
}

// AsOwner calls act while the calling thread has the effective uid id (seteuid(2), of this thread alone). The kernel lets a process change
// the priority of those with its own id, or of any with CAP_SYS_NICE, which root has not in a container. The real and the saved uid stay,
// so that processes with that id may not signal the thread. Without the right to change ids it just calls act.
func AsOwner(id int, act func()) {
	const keep = ^uintptr(0) // -1: this id stays as it is
	runtime.LockOSThread()
	own := uintptr(unix.Geteuid())
	_, _, _ = unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(id), keep) // unix.Setresuid would change all threads
	act()
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, keep, own, keep); err == 0 {
		runtime.UnlockOSThread() // else the thread ends with the goroutine, so that nothing else runs on it
	}
}
