package pool

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// A memfd is a file without a name, in memory. The memory sizes in /proc need not include its content: its descriptor may lie in a
// socket, or be closed while a page is mapped. So Caddy itself makes each memfd that a program asks for, keeps a descriptor, and adds up
// what they hold.

// maxMemfds is how many memfds one run may have open. Each costs Caddy a descriptor.
const maxMemfds = 64

const memfdFlags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | unix.MFD_NOEXEC_SEAL | unix.MFD_EXEC

// memfds makes and keeps the memfds of the run in a lane. Safe for concurrent use.
type memfds struct {
	uid int // their owner; 0 for Caddy's own user

	mu    sync.Mutex
	files []int
}

// give makes a memfd and installs a descriptor of it in the process that asked.
func (m *memfds) give(listener uintptr, id uint64, flags int) unix.Errno {
	if flags&^memfdFlags != 0 {
		return unix.EINVAL // what a kernel says that does not know a flag; huge pages are refused, since the operator reserves them
	}
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
	m.mu.Lock()
	defer m.mu.Unlock()
	files := m.files
	m.files = nil
	return files
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
