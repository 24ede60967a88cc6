package pool

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// A memfd is a file without a name, in memory. The memory sizes in /proc need not include its content: its descriptor may lie in a
// socket, or be closed while a page is mapped. So Caddy itself makes each memfd that a program asks for, keeps a descriptor, and adds up
// what they hold. The kernel forwards memfd_create to Caddy through the listener of the lane's seccomp filter (seccomp_unotify(2)).

// maxMemfds is how many memfds one run may have open. Each costs Caddy a descriptor.
const maxMemfds = 64

const (
	seccompIoctlAddFD = 0x40182103 // linux/seccomp.h: SECCOMP_IOCTL_NOTIF_ADDFD
	memfdFlags        = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | unix.MFD_NOEXEC_SEAL | unix.MFD_EXEC
)

// memfds makes and keeps the memfds of the run in a lane. Its goroutine, serve, ends when the last process with the filter has ended, or
// with close. It is nil for a lane whose programs have no memfds. Safe for concurrent use.
type memfds struct {
	listener *os.File
	uid      int // the owner of the memfds; 0 for Caddy's own user

	mu    sync.Mutex
	files []int
}

func newMemfds(listener, uid int) *memfds {
	_ = unix.SetNonblock(listener, true) // for the runtime's poller; reading blocks all the same
	m := &memfds{listener: os.NewFile(uintptr(listener), "seccomp listener"), uid: uid}
	go m.serve()
	return m
}

func (m *memfds) serve() {
	raw, err := m.listener.SyscallConn()
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
				m.answer(fd)
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

func (m *memfds) answer(listener uintptr) {
	var asked seccompNotification
	if ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&asked)) != 0 {
		return // the process that asked has ended
	}
	flags := int(uint32(asked.arguments[1]))
	errno := unix.EINVAL // what a kernel says that does not know a flag; huge pages are refused, since the operator reserves them
	if flags&^memfdFlags == 0 {
		errno = m.give(listener, asked.id, flags)
	}
	if errno != 0 {
		refusal := seccompResponse{id: asked.id, errno: -int32(errno)}
		_ = ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&refusal))
	}
}

// give makes a memfd and installs a descriptor of it in the process that asked.
func (m *memfds) give(listener uintptr, id uint64, flags int) unix.Errno {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked()
	if len(m.files) >= maxMemfds {
		return unix.EMFILE
	}
	file, err := unix.MemfdCreate("memfd", flags|unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err.(unix.Errno) //nolint:errorlint,forcetypeassert // a bare errno
	}
	if m.uid != 0 {
		_ = unix.Fchown(file, m.uid, m.uid)
	}
	// The program gets a descriptor that is opened anew. The kernel counts that one as open for writing, which letGo relies on, but not
	// the one that memfd_create returns.
	theirs, err := unix.Open(fdPath(file), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(file)
		return unix.ENFILE
	}
	add := seccompAddFD{id: id, source: uint32(theirs)}
	if flags&unix.MFD_CLOEXEC != 0 {
		add.fileMode = unix.O_CLOEXEC
	}
	number, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, seccompIoctlAddFD, uintptr(unsafe.Pointer(&add)))
	_ = unix.Close(theirs) // before the answer: a file that somebody has open for writing cannot be executed
	if errno != 0 {
		_ = unix.Close(file)
		return errno // such as EMFILE, when the program has no descriptor left
	}
	m.files = append(m.files, file)
	given := seccompResponse{id: id, value: int64(number)}
	_ = ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&given)) // refused where who asked has ended
	return 0
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func ioctl(fd uintptr, request uint, argument unsafe.Pointer) unix.Errno {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(argument)); errno != unix.EINTR {
			return errno
		}
	}
}

// releaseLocked closes the memfds that no process uses any more.
func (m *memfds) releaseLocked() {
	kept := m.files[:0]
	for _, file := range m.files {
		if !letGo(file) {
			kept = append(kept, file)
		}
	}
	m.files = kept
}

// letGo closes a memfd if no process has it open, mapped or executes it, and says whether it did. Only then does the kernel grant a
// write lease (F_SETLEASE in fcntl(2)). The lease does not see descriptors opened with O_PATH, through which the file could be opened
// and filled again, uncounted. So letGo first empties the file and seals it against writing. A memfd that the program has sealed itself
// cannot be emptied, and is kept until the run is over.
func letGo(file int) bool {
	other, err := unix.Open(fdPath(file), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(other) // ends the lease
	if _, err := unix.FcntlInt(uintptr(other), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	const shut = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if unix.Ftruncate(file, 0) != nil {
		return false
	}
	if _, err := unix.FcntlInt(uintptr(file), unix.F_ADD_SEALS, shut); err != nil {
		return false
	}
	_ = unix.Close(file)
	return true
}

// bytes is what the memfds of the run hold.
func (m *memfds) bytes() (sum int64) {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked()
	for _, file := range m.files {
		var stat unix.Stat_t
		if unix.Fstat(file, &stat) == nil {
			sum += stat.Blocks * 512
		}
	}
	return sum
}

// take returns the memfds of a run that is over, and forgets them. The caller closes them once the end of the run is reported: the
// kernel frees their memory then, which takes time.
func (m *memfds) take() []int {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	files := m.files
	m.files = nil
	return files
}

func (m *memfds) close() {
	if m != nil {
		_ = m.listener.Close()
		process.CloseAll(m.take())
	}
}

// mappedMemfds returns how many bytes of memfds are mapped by processes, each page counted once. These are in the sizes of the processes
// already. Pages that a private mapping has written to belong to the process, not to the file.
func mappedMemfds(processes []procfs.Status) (sum int64) {
	for _, p := range processes {
		if p.SharedResident == 0 {
			continue
		}
		text, err := os.ReadFile(p.Dir + "/smaps")
		if err != nil {
			continue // what it maps then counts twice
		}
		memfd, held := false, int64(0)
		for line := range strings.Lines(string(text)) {
			name, rest, _ := strings.Cut(line, " ")
			switch name {
			case "Pss:":
				held = kib(rest)
			case "Anonymous:":
				if memfd {
					sum += max(0, held-kib(rest))
				}
			default:
				if !strings.HasSuffix(name, ":") { // a mapping's first line
					memfd = strings.Contains(rest, " /memfd:")
				}
			}
		}
	}
	return sum
}

func kib(text string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
	return n << 10
}
