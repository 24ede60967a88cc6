package scratch

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// A file without a name holds its blocks until the last descriptor and the last mapping are gone.
func TestUnlinkedFilesAreCounted(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	top := t.TempDir()
	u := NewUnlinked(top)
	expect := func(want int64, what string) {
		t.Helper()
		// Two processes that have the same file open hold it once.
		for range 2 {
			procfs.ReadHandles("/proc/self", procfs.Handles{Mappings: 1 << 20}, u)
		}
		if got := u.Bytes(); got < want || got > want+want/8 {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	write := func(f *os.File) *os.File {
		t.Helper()
		if _, err := f.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil { // the file system may take blocks late
			t.Fatal(err)
		}
		return f
	}
	create := func(name string) *os.File {
		t.Helper()
		f, err := os.Create(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		return write(f)
	}
	expect(0, "nothing")
	named := create("named (deleted)")
	defer named.Close()
	expect(0, "a file with a name")

	f := create("f")
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	expect(size, "one that is open")
	second, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(size, "one that is open twice")
	_ = unix.Close(second)
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	expect(size, "one that is open and mapped")
	_ = f.Close()
	expect(size, "one of which a page is mapped")
	if err := unix.Munmap(page); err != nil {
		t.Fatal(err)
	}
	expect(0, "one that is gone")

	if fd, err := unix.Open(top, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil { // not every file system can
		f := write(os.NewFile(uintptr(fd), "temporary"))
		expect(size, "one that never had a name")
		_ = f.Close()
	}
	procfs.ReadHandles("/proc/self/no-such-process", procfs.Handles{Mappings: 1 << 20}, u)
	if got := u.Bytes(); got != 0 {
		t.Errorf("a process that is not there holds %d", got)
	}
}
