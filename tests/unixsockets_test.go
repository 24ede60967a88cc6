package tests

import (
	"fmt"
	"strings"
	"testing"
)

// Where programs have unix sockets, they have them in their own scratch: not by another path that leads to the same socket, not
// by an address that changes while it is looked at, and not by going around whoever looks.
func TestUnixSocketsStayInScratch(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		o := makeOutside(t, c)
		a := c.run(fmt.Sprintf("host, writable, abstract = %q, %q, %q\n", o.socket, o.writable, strings.TrimPrefix(o.abstract, "@")) + reachForASocket)
		if a.Stdout != "reached []\n" || a.Stderr != "" {
			t.Errorf("%s%s", a.Stdout, a.Stderr)
		}
		select {
		case what := <-o.reached:
			t.Errorf("a program has reached %s", what)
		default:
		}
		if n := entries(t, o.writable); n > 0 {
			t.Errorf("%d files have been made in a directory of the host", n)
		}
	})
}

const reachForASocket = `
import ctypes, os, platform, socket, threading, time
libc = ctypes.CDLL(None, use_errno=True)
CONNECT, BIND, OPENAT = (42, 49, 257) if platform.machine() == "x86_64" else (203, 200, 56)
reached = []
def attempt(what, call):
    try:
        r = call()
    except OSError: return
    if not (isinstance(r, int) and r < 0): reached.append(what)
def connect(path, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as s: s.settimeout(1); s.connect(path)
def bind(path):
    with socket.socket(socket.AF_UNIX) as s: s.bind(path)
directory, name = os.path.split(host)
os.symlink(host, "link"); os.symlink(directory, "way"); os.symlink(writable, "out")
here = os.readlink("/proc/self/cwd")
for path in (host, "link", "/tmp/link", "way/" + name, "/tmp/way/" + name, here + "/link", "/proc/self/cwd/link", "/proc/self/root" + host, "../" * 12 + host[1:],
             "/tmp/../" * 2 + host[1:], "/tmp/sub/../way/" + name, "\0" + abstract):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM): attempt("connect " + path, lambda: connect(path, kind))
for path in (writable + "/s", "out/s", "/tmp/out/s", "/proc/self/cwd/out/s", "../" * 12 + writable[1:] + "/s"): attempt("bind " + path, lambda: bind(path))
attempt("hard link", lambda: os.link(host, "hard"))
if os.path.exists("hard"): attempt("hard", lambda: connect("hard"))

# The sixth argument says that a call need not be asked about.
address = b"\1\0" + os.fsencode(host) + b"\0"
past = [ctypes.c_long(n) for n in (0, 0, 0x70617468)]
with socket.socket(socket.AF_UNIX) as s: attempt("connect unasked", lambda: libc.syscall(CONNECT, s.fileno(), address, len(address), *past))
there = b"\1\0" + os.fsencode(writable) + b"/s\0"
with socket.socket(socket.AF_UNIX) as s: attempt("bind unasked", lambda: libc.syscall(BIND, s.fileno(), there, len(there), *past))
attempt("open unasked", lambda: libc.syscall(OPENAT, -100, os.fsencode(os.path.dirname(host) + "/secret"), 0, ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0x70617468)))
attempt("make unasked", lambda: libc.syscall(OPENAT, -100, os.fsencode(writable) + b"/f", 0o102, ctypes.c_long(0o666), ctypes.c_long(0), ctypes.c_long(0x70617468)))

# An address, and a directory on its path, that change all the time.
server = socket.socket(socket.AF_UNIX); server.bind("good"); server.listen(1000)
good, evil = (b"\1\0" + os.fsencode(p) + bytes(110) for p in ("/tmp/good", host))
memory, stop = ctypes.create_string_buffer(110), []
def flip():
    while not stop:
        ctypes.memmove(memory, evil, 108); ctypes.memmove(memory, good, 108)
def turn():
    while not stop:
        for make, remove in ((lambda: os.symlink(directory, "d"), os.unlink), (lambda: os.symlink(writable, "d"), os.unlink), (lambda: os.mkdir("d"), os.rmdir)):
            try: make(); remove("d")
            except OSError: pass
threads = [threading.Thread(target=f) for f in (flip, turn)]
for t in threads: t.start()
made, end = 0, time.monotonic() + 1.5
while time.monotonic() < end:
    with socket.socket(socket.AF_UNIX) as s: s.setblocking(False); made += libc.syscall(CONNECT, s.fileno(), memory, 108) == 0
    attempt("turned connect", lambda: connect("/tmp/d/" + name))
    try: bind("/tmp/d/zz")   # good where that is scratch
    except OSError: pass
stop.append(1)
for t in threads: t.join()
if made == 0: print("no address was ever good")
print("reached", sorted(set(reached)))
`
