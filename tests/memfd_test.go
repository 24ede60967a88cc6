package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const memfdHelp = `
import ctypes, errno, fcntl, mmap, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
`

// With namespaces programs have memfds as ever; without, they are refused.
func TestMemfds(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "limits {\n memory 128MiB\n scratch 64MiB\n }", func(t *testing.T, c *caddy) {
		if c.o.noNamespaces {
			c.mustPrint("import os\ntry: os.memfd_create('x')\nexcept OSError as e: print(e.strerror)", "Operation not permitted\n")
			return
		}
		c.mustPrint(memfdHelp+`
fd = os.memfd_create("x", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
print(os.get_inheritable(fd), os.write(fd, b"hello"), os.pread(fd, 9, 0), os.fstat(fd).st_uid == os.getuid(), os.readlink(f"/proc/self/fd/{fd}"))
m = mmap.mmap(fd, 5)
if os.fork() == 0: m[0:1] = b"J"; os._exit(0)
os.wait(); print(m[:])
fcntl.fcntl(fd, 1033, 2 | 4)   # F_ADD_SEALS: F_SEAL_SHRINK, F_SEAL_GROW
try: os.truncate(fd, 9)
except OSError as e: print(e.strerror, fcntl.fcntl(fd, 1034))
kept = os.memfd_create("kept", 0)
print(subprocess.run([sys.executable, "-c", f"import os; os.write({kept}, b'from a child'); print(os.memfd_create('own') > 2)"], pass_fds=[kept], capture_output=True, text=True).stdout.strip(), os.pread(kept, 20, 0))
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [kept]); print(os.pread(socket.recv_fds(b, 1, 1)[1][0], 4, 0))
for flags in (4, 4 | 21 << 26, 1 << 20):   # huge pages, unknown
    try: print(os.memfd_create("x", flags))
    except OSError as e: print(errno.errorcode[e.errno])
many = []
try:
    while True: many.append(os.memfd_create("x"))
except OSError as e: print(errno.errorcode[e.errno], len(many) > 50)
for fd in many: os.close(fd)
print(os.memfd_create("again") > 2)
`, "False 5 b'hello' True /memfd:memfd (deleted)\nb'Jello'\nOperation not permitted 6\nTrue b'from a child'\nb'from'\nEINVAL\nEINVAL\nEINVAL\nEMFILE True\nTrue\n")
		// What a program has let go of does not count any more; what it maps counts once.
		c.mustPrint(memfdHelp+`
for _ in range(60):
    fd = os.memfd_create("x"); os.write(fd, bytes(8 << 20)); m = mmap.mmap(fd, 8 << 20); m.close(); os.close(fd)
fd = os.memfd_create("x"); os.ftruncate(fd, 50 << 20); m = mmap.mmap(fd, 50 << 20); m.write(bytes(50 << 20))
children = []
for _ in range(3):
    child = os.fork()
    if child == 0: sum(m[::4096]); time.sleep(0.4); os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
print("done")
`, "done\n")
		// No signal has it made twice, and none of it stays open with the server.
		c.mustPrint(memfdHelp+`
import signal
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
before = len(os.listdir("/proc/self/fd"))
for _ in range(300):
    try: os.close(os.memfd_create("x"))
    except InterruptedError: pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(os.listdir("/proc/self/fd")) - before)
for _ in range(30):
    fd = os.memfd_create("true"); os.write(fd, open("/bin/true", "rb").read()); only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY); os.close(fd)
    subprocess.run([f"/proc/self/fd/{only}"], pass_fds=[only], check=True); os.close(only)
`, "0\n")
		// A program in one is confined like any other.
		c.mustPrint(memfdHelp+`
fd = os.memfd_create("sh", os.MFD_CLOEXEC); os.write(fd, open("/bin/sh", "rb").read())
only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY); os.close(fd)
done = subprocess.run([f"/proc/self/fd/{only}", "-c", "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; cat /etc/shadow || echo none"], pass_fds=[only], capture_output=True, text=True)
print(done.stdout.split())
`, "['CapEff:', '0000000000000000', 'NoNewPrivs:', '1', 'Seccomp:', '2', 'none']\n")
		eventually(t, 5*time.Second, "Caddy holds no memfd of a run that is over", func() bool { return c.memfds() == 0 })
	})
}

// memfds counts those that Caddy has open.
func (c *caddy) memfds() (count int) {
	c.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.pid()))
	if err != nil {
		c.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "/memfd:") {
			count++
		}
	}
	return count
}

// However a program hides what it has filled, it holds no more than its memory.
func TestMemfdsAreBounded(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "limits {\n memory 128MiB\n scratch 64MiB\n }", func(t *testing.T, c *caddy) {
		if c.o.noNamespaces {
			return // TestMemfds: there are none
		}
		for _, s := range []struct{ name, code string }{
			{"written", "keep.append(fd)"},
			{"in a socket", "socket.send_fds(a, [b'x'], [fd]); os.close(fd)"},
			{"in a socket in a socket", "p, q = socket.socketpair(); socket.send_fds(p, [b'x'], [fd]); os.close(fd); socket.send_fds(a, [b'x'], [q.fileno()]); q.close(); keep.append(p)"},
			{"a page mapped", "keep.append(mmap.mmap(fd, 4096)); os.close(fd)"},
			{"a page mapped by a stopped child", "m = mmap.mmap(fd, 4096)\n    if os.fork() == 0: libc.prctl(4, 0, 0, 0, 0); os.kill(os.getpid(), 19)\n    m.close(); os.close(fd)"},
			{"not to be looked at", "libc.prctl(4, 0, 0, 0, 0); keep.append(fd)"},
			{"open for reading", "keep.append(os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)); os.close(fd)"},
			{"sealed", "fcntl.fcntl(fd, 1033, 15); keep.append(os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)); os.close(fd)"},
			{"executed", "os.pwrite(fd, open('/bin/sleep', 'rb').read(), 0); only = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY); os.close(fd); keep.append(subprocess.Popen([f'/proc/self/fd/{only}', '60'], pass_fds=[only])); os.close(only)"},
			{"reserved", "os.posix_fallocate(fd, 0, 32 << 20); keep.append(fd)"},
		} {
			t.Run(s.name, func(t *testing.T) {
				a := c.run(memfdHelp + "keep, (a, b) = [], socket.socketpair()\nfor _ in range(20):\n    fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); os.posix_fallocate(fd, 0, 16 << 20)\n    " + s.code + "\n    time.sleep(0.02)\ntime.sleep(3); print('survived')\n")
				if a.Status != "memory_limit" {
					t.Errorf("%s", a.raw)
				}
			})
		}
		// A handle that no process counts for is of a file that is empty for good.
		c.mustPrint(memfdHelp+`
keep = []
for _ in range(20):
    fd = os.memfd_create("x"); os.posix_fallocate(fd, 0, 16 << 20); keep.append(os.open(f"/proc/self/fd/{fd}", os.O_PATH)); os.close(fd); time.sleep(0.02)
time.sleep(0.2)
held = 0
for path in keep[:-1]:
    try:
        fd = os.open(f"/proc/self/fd/{path}", os.O_RDWR); os.posix_fallocate(fd, 0, 1 << 20)
    except OSError: pass
    held += os.stat(path).st_blocks
print(held)
`, "0\n")
		c.mustPrint(memfdHelp+`
fd = os.memfd_create("x"); os.write(fd, b"x")
for path in (f"/proc/self/fd/{fd}", fd):
    try: os.setxattr(path, "user.x", bytes(60000)); print("set")
    except OSError as e: print(e.strerror)
`, "Operation not supported\nOperation not supported\n")
		c.mustPrint("print('next')", "next\n")
	})
}
