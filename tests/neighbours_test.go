package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// holder makes one of each thing that might be found and tells, at its end, what it has held and what it has felt.
const holder = `
import ctypes, fcntl, json, os, signal, socket, subprocess, sys, sysconfig, time
libc = ctypes.CDLL(None, use_errno=True)
this = sysconfig.get_paths()["stdlib"] + "/this.py"
held, felt, keep, signals = [], [], [], []
def hold(what, call):
    try: r = call()
    except (OSError, ValueError, ImportError): return
    if isinstance(r, int) and r < 0: return
    held.append(what); keep.append(r)
for s in (signal.SIGURG, signal.SIGWINCH, signal.SIGCONT): signal.signal(s, lambda n, _: signals.append(n))
signal.signal(signal.SIGIO, lambda *_: felt.append("access to a shared directory (dnotify)"))
def unix(name):
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen(8); return s
def tcp():
    s = socket.socket(); s.bind(("127.0.0.1", 47113)); s.listen(8); return s
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 47114)); s.setblocking(False); return s
def lock(kind, path):
    f = os.open(path, os.O_RDONLY)
    if kind == "flock": fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else: fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return f
def inotify():
    fd = libc.inotify_init1(0o4000)
    return fd if fd >= 0 and libc.inotify_add_watch(fd, os.path.dirname(this).encode(), 0x21) >= 0 else -1
libc.sem_open.restype = ctypes.c_void_p
hold("file", lambda: open("zz_file", "w").write("the secret of a neighbour"))
hold("file in /dev/shm", lambda: open("/dev/shm/zz_file", "w").write("x"))
hold("process", lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20) # zz_process"]))
hold("shared memory", lambda: libc.shmget(0x5eed01, 4096, 0o1666))
hold("semaphore", lambda: libc.semget(0x5eed01, 1, 0o1666))
hold("queue", lambda: libc.msgget(0x5eed01, 0o1666))
hold("POSIX queue", lambda: libc.mq_open(b"/zz_neighbour", 0o102, 0o666, None))
hold("POSIX semaphore", lambda: libc.sem_open(b"/zz_neighbour", 0o100, 0o666, 1) or -1)
hold("POSIX memory", lambda: libc.shm_open(b"/zz_neighbour", 0o102, 0o666))
hold("key", lambda: libc.syscall(248, b"user", b"zz_neighbour", b"x", 1, -4))
hold("abstract socket", lambda: unix("\0zz_neighbour"))
hold("socket", lambda: unix("zz_socket"))
hold("TCP port", tcp)
hold("UDP port", udp)
for path in (this, *SHARED):
    hold("flock " + path, lambda: lock("flock", path)); hold("lockf " + path, lambda: lock("lockf", path))
hold("inotify", inotify)
hold("dnotify", lambda: fcntl.fcntl(os.open(os.path.dirname(this), os.O_RDONLY), 1026, 0x80000001))
nice, io = os.getpriority(0, 0), libc.syscall(252, 1, 0)
del signals[:]
start = time.time()
while time.time() < start + 9: time.sleep(.02)
end = time.time()
if signals: felt.append(f"signals {sorted(set(signals))}")
if os.getpriority(0, 0) not in (nice, 13): felt.append("another priority")   # 13 is what each long run gets
if libc.syscall(252, 1, 0) != io: felt.append("another io priority")
for what, r in zip(held, keep):
    if what in ("socket", "abstract socket", "TCP port"):
        r.setblocking(False)
        try: r.accept(); felt.append("a connection to its " + what)
        except OSError: pass
    if what == "UDP port":
        try: r.recv(1); felt.append("a datagram")
        except OSError: pass
    if what == "inotify":
        try:
            if os.read(r, 4096): felt.append("access to a shared directory (inotify)")
        except OSError: pass
    if what == "process" and r.poll() is not None: felt.append("the death of its child")
print(json.dumps({"start": start, "end": end, "held": held, "felt": sorted(set(felt))}))
`

// lockable are paths of files and directories that all runs may open.
const lockable = `
import os, sys
SHARED = ["/", "/etc", "/etc/passwd", "/etc/hosts", "/home", "/usr", "/usr/bin/env", os.path.realpath(sys.executable), "/sys/devices/system/cpu/online", "/proc/version"]
`

// searcher looks for all that a holder holds and pokes at it, harmlessly.
const searcher = `
import ctypes, errno, fcntl, glob, json, os, signal, socket, sys, sysconfig, time
libc = ctypes.CDLL(None, use_errno=True)
this = sysconfig.get_paths()["stdlib"] + "/this.py"
found = set()
def look(what, call):
    try: r = call()
    except (OSError, ValueError): return
    if r and not (isinstance(r, int) and r < 0): found.add(what)
def connect(name):
    with socket.socket(socket.AF_UNIX) as s: s.settimeout(1); s.connect(name); return True
def tcp():
    with socket.socket() as s: s.settimeout(1); s.connect(("127.0.0.1", 47113)); return True
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(("127.0.0.1", 47114)); s.send(b"x"); s.send(b"x"); return True
def port(kind, number):
    with socket.socket(socket.AF_INET, kind) as s:
        try: s.bind(("127.0.0.1", number))
        except OSError as e: return e.errno == errno.EADDRINUSE
def flocked(path):
    f = os.open(path, os.O_RDONLY)
    try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.flock(f, fcntl.LOCK_UN)
    except OSError as e: return e.errno == errno.EWOULDBLOCK
    finally: os.close(f)
def locked(path):
    with open(path, "rb") as f: return fcntl.fcntl(f, fcntl.F_GETLK, __import__("struct").pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))[:2] != bytes([fcntl.F_UNLCK, 0])
libc.sem_open.restype = ctypes.c_void_p
me, here = os.getpid(), os.getcwd()
def files():
    for d in ("/dev/shm", "/tmp", "/var/tmp", "..", "../..", os.path.dirname(here), *[f"/proc/{p}/{w}" for p in host for w in ("cwd", "root/tmp")], *paths):
        for f in ("zz_file", "zz_socket"):
            for p in [f"{d}/{f}", *glob.glob(f"{d}/*/{f}")]:
                try:
                    if os.path.samefile(os.path.dirname(p), here): continue
                except OSError: pass
                look("file", lambda: os.open(p, os.O_RDONLY)); look("file, to write", lambda: os.open(p, os.O_WRONLY)); look("socket", lambda: connect(p))
def processes():
    try: shown = os.listdir("/proc")
    except OSError: shown = []
    for p in {*shown, *map(str, host)}:
        if not p.isdigit() or int(p) == me: continue
        look("process", lambda: b"zz_process" in open(f"/proc/{p}/cmdline", "rb").read())
        for f in ("environ", "maps", "mem"): look(f + " of a process", lambda: int(p) != os.getppid() and os.open(f"/proc/{p}/{f}", os.O_RDONLY))
def disturb():
    for p in host + list(range(2, 400)):
        if p == me: continue
        for s in (signal.SIGURG, signal.SIGWINCH):
            if libc.kill(p, s) == 0 and p in host: found.add("process, by a signal")
            libc.syscall(234, p, p, s); libc.kill(-p, s)
        libc.setpriority(0, p, 7); libc.syscall(251, 1, p, (2 << 13) | 7)
        try: os.close(os.pidfd_open(p))
        except OSError: pass
    libc.setpriority(2, os.getuid(), 7); libc.syscall(251, 3, os.getuid(), (2 << 13) | 7)
    for s in (signal.SIGURG, signal.SIGWINCH): libc.kill(-1, s)
start = time.time()
while time.time() < start + 2:
    last = time.time()
    files(); processes(); disturb()
    look("shared memory", lambda: libc.shmget(0x5eed01, 0, 0) + 1); look("semaphore", lambda: libc.semget(0x5eed01, 0, 0) + 1); look("queue", lambda: libc.msgget(0x5eed01, 0) + 1)
    for n in range(64): look("shared memory by number", lambda: libc.shmctl(n, 2, ctypes.create_string_buffer(256)) + 1); look("queue by number", lambda: libc.msgctl(n, 2, ctypes.create_string_buffer(256)) + 1)
    look("POSIX queue", lambda: libc.mq_open(b"/zz_neighbour", 2) + 1); look("POSIX semaphore", lambda: libc.sem_open(b"/zz_neighbour", 0)); look("POSIX memory", lambda: libc.shm_open(b"/zz_neighbour", 2, 0) + 1)
    for ring in (-3, -4, -5): look("key", lambda: libc.syscall(250, 10, ring, b"user", b"zz_neighbour", 0))
    look("abstract socket", lambda: connect("\0zz_neighbour")); look("TCP port", tcp); look("UDP port", udp)
    look("TCP port in use", lambda: port(socket.SOCK_STREAM, 47113)); look("UDP port in use", lambda: port(socket.SOCK_DGRAM, 47114))
    for path in (this, *SHARED): look("flock " + path, lambda: flocked(path)); look("lockf " + path, lambda: locked(path))
    for t in ("unix", "tcp", "udp"): look("/proc/net/" + t, lambda: any(w in open("/proc/net/" + t).read() for w in ("zz_neighbour", ":B809", ":B80A")))
    look("/proc/locks", lambda: open("/proc/locks").read())
    look("", lambda: os.listdir(os.path.dirname(this)) and None); open(this).read()
    time.sleep(.05)
print(json.dumps({"start": start, "last": last, "end": time.time(), "found": sorted(found)}))
`

// Two programs that run at once know nothing of each other, however one of them looks.
func TestNeighboursDoNotFindEachOther(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		type held struct {
			Start, End float64
			Held, Felt []string
		}
		type search struct {
			Start, Last, End float64
			Found            []string
		}
		first, failed := make(chan held, 1), make(chan string, 1)
		go func() {
			var h held
			a, err := c.execute(context.Background(), map[string]any{"code": lockable + holder, "timeout": 30})
			if err == nil {
				err = json.Unmarshal([]byte(a.Stdout), &h)
			}
			if err != nil {
				failed <- fmt.Sprintf("%v: %s", err, a.raw)
				return
			}
			first <- h
		}()
		c.waitHealth(wholeWithin, "the first at work", leased(1))
		time.Sleep(time.Second) // the second's clock and the first's show whether that was enough
		var host []int
		for _, p := range descendants(t, c.pid()) {
			host = append(host, p.pid)
		}
		paths, err := filepath.Glob(filepath.Join(c.tmp(), "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		known, err := json.Marshal(map[string]any{"host": host, "paths": append(paths, "/")})
		if err != nil {
			t.Fatal(err)
		}
		var s search
		a, err := c.execute(t.Context(), map[string]any{"timeout": 30, "code": fmt.Sprintf("import json\nglobals().update(json.loads(%q))\n", known) + lockable + searcher})
		if err != nil || json.Unmarshal([]byte(a.Stdout), &s) != nil {
			t.Fatalf("%v: %s", err, a.raw)
		}
		var h held
		select {
		case h = <-first:
		case why := <-failed:
			t.Fatal(why)
		}
		if s.Start < h.Start || s.End > h.End {
			t.Fatalf("they have not run at once: the first from %f to %f, the second from %f to %f", h.Start, h.End, s.Start, s.End)
		}
		if !slices.Contains(h.Held, "file") {
			t.Errorf("the first has not even had a file: %q", h.Held)
		}
		for _, what := range s.Found {
			if c.o.noNamespaces && (strings.HasPrefix(what, "flock ") || strings.HasPrefix(what, "lockf ")) {
				continue // without mounts of its own a file has one inode for all, and so one lock: docs/security.md says so
			}
			t.Errorf("found: %s", what)
		}
		for _, what := range h.Felt {
			t.Errorf("felt: %s", what)
		}
		t.Logf("held: %s", strings.Join(h.Held, ", "))
	})
}

// What a run had in its memory, on its disk and in its pipes is gone with it.
func TestMemoryOfTheDead(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "workers {\n idle 1\n max 1\n templates 1\n }", func(t *testing.T, c *caddy) {
		const dead = `
import os, mmap
secret = b"the-last-" + b"will-of-%d" % N
b = secret * (4 << 20 >> 4)
m = mmap.mmap(-1, 8 << 20); m.write((secret + b" ") * 10000)
open("will", "wb").write(secret * 100000)
try: f = os.memfd_create("will"); os.write(f, secret * 100000)
except (OSError, AttributeError): pass
p = os.pipe(); os.write(p[1], secret * 1000)
os.environ["WILL"] = secret.decode()
print(len(b) > 0)
`
		// Its own constants are in halves, so that it does not find itself.
		const reader = `
import mmap, os, re
secret = re.compile(b"the-last-" + b"w" + b"ill-of-[0-9]")
found = []
def search(what, data):
    if secret.search(data): found.append(what)
for n in range(4):
    m = mmap.mmap(-1, 16 << 20); search("fresh pages", m[:]); m.close()
with open("probe", "wb") as f: f.truncate(8 << 20)
search("a file's hole", open("probe", "rb").read())
for top in (".", "/tmp", "/var/tmp", "/dev/shm"):
    for d, _, names in os.walk(top):
        for n in names:
            try: search(os.path.join(d, n), open(os.path.join(d, n), "rb").read(1 << 20))
            except OSError: pass
try:
    with open("/proc/self/mem", "rb", buffering=0) as mem:
        for line in open("/proc/self/maps"):
            span, flags = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            if "r" not in flags or "[v" in line or end - start > 64 << 20: continue
            try: mem.seek(start); search("own memory: " + line, mem.read(end - start))
            except (OSError, OverflowError): pass
except OSError: pass
print(found)
`
		for n := range 6 {
			c.mustPrint(strings.Replace(dead, "N", fmt.Sprint(n), 1), "True\n")
			c.mustPrint(reader, "[]\n")
		}
	})
}
