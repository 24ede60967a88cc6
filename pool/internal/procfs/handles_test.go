package procfs

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A descriptor of a socket counts, and so does each descriptor that epoll watches, also one that has been closed since.
func TestHandlesAreSocketsAndWatches(t *testing.T) {
	dir := "/proc/" + strconv.Itoa(os.Getpid())
	before, ok := ReadHandles(dir, Handles{Watches: 1000}, nil)
	if !ok {
		t.Fatal("its own descriptors are hidden")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, fd := range []int{pair[0], pair[1], poll} {
			_ = unix.Close(fd)
		}
	}()
	again, err := unix.FcntlInt(uintptr(pair[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{pair[0], pair[1], again} {
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Close(again)
	after, ok := ReadHandles(dir, Handles{Watches: 1000}, nil)
	if !ok || after.Sockets-before.Sockets != 2 || after.Watches-before.Watches != 3 {
		t.Errorf("%+v, then %+v with two sockets and three watches more", before, after)
	}
	if few, _ := ReadHandles(dir, Handles{Watches: before.Watches + 1}, nil); few.Watches != before.Watches+1 {
		t.Errorf("%d watches were counted, with a bound of %d", few.Watches, before.Watches+1)
	}
	if _, ok := ReadHandles("/proc/self/no-such-process", Handles{}, nil); ok {
		t.Error("a process that is not there has descriptors")
	}
}

// A list that does not end is not read to its end.
func TestWatchesAreCountedUpToABound(t *testing.T) {
	t.Parallel()
	text := "pos:\t0\nflags:\t02\n" + strings.Repeat("tfd:        5 events:       19 data: 5  pos:0 ino:1 sdev:8\n", 50)
	for most, want := range map[int]int{0: 0, 7: 7, 50: 50, 1000: 50} {
		if got := scanLines(strings.NewReader(text), "tfd:", most, nil); got != want {
			t.Errorf("up to %d: %d, want %d", most, got, want)
		}
	}
}

// The first thread of a process may end before the others; the process holds as much as before.
func TestStatusOfAProcessWithoutItsFirstThread(t *testing.T) {
	t.Parallel()
	const program = `
import ctypes, os, platform, sys, threading
held = bytearray(64 << 20)
def rest():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=rest).start()
os.write(1, b"held")
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)   # exit of this thread alone
`
	pid := startHolder(t, program)
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) { // the thread ends when it likes
		if fields, err := ReadStat(pid); err != nil || fields[0] == "Z" {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("its first thread did not end")
		}
	}
	s := ReadStatus(pid)
	if s.Anonymous < 64<<20 || s.Uid != os.Getuid() || s.Dir == "/proc/"+strconv.Itoa(pid) {
		t.Errorf("%+v", s)
	}
	if held, ok := ReadProportional(s.Dir); !ok || held < 64<<20 {
		t.Errorf("it holds %d bytes, %v", held, ok)
	}
}

// Locks on files and mappings are counted, up to a bound.
func TestHandlesAreLocksAndMappings(t *testing.T) {
	t.Parallel()
	const program = `
import fcntl, mmap, os, sys, tempfile
f = tempfile.TemporaryFile()
for n in range(300): fcntl.lockf(f, fcntl.LOCK_EX, 1, 2 * n)
kept = [mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) for _ in range(500)]   # shared ones are not merged
os.write(1, b"held")
sys.stdin.read()
`
	pid := startHolder(t, program)
	h, ok := ReadHandles("/proc/"+strconv.Itoa(pid), Handles{Locks: 10_000, Mappings: 10_000}, nil)
	if !ok || h.Locks != 300 || h.Mappings < 500 {
		t.Errorf("%+v, %v", h, ok)
	}
	if few, _ := ReadHandles("/proc/"+strconv.Itoa(pid), Handles{Locks: 100, Mappings: 100}, nil); few.Locks != 100 || few.Mappings != 100 {
		t.Errorf("with a bound of 100: %+v", few)
	}
}
