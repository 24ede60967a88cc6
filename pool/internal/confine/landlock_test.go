package confine

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

func TestLandlockFollowsTheABI(t *testing.T) {
	t.Parallel()
	dirs := []string{"/usr", "/sys", "/home/ann/py"}
	python := Sources{Executable: "/home/ann/py/bin/python3", Roots: []string{"/home/ann/py"}}
	root := makeRoot(python, describedSystem(1001, dirs, nil))
	const first, refer, truncate, ioctl = 0x1fff, 0x2000, 0x4000, 0x8000 // linux/landlock.h
	for _, c := range []struct {
		abi      int
		fs       uint64
		net      uint64 // handled without namespaces; with them it is 0
		scoped   uint64
		attrSize int
		flags    uint32
	}{
		{-1, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0},
		{1, first, 0, 0, 8, 0},
		{2, first | refer, 0, 0, 8, 0},
		{3, first | refer | truncate, 0, 0, 8, 0},
		{4, first | refer | truncate, 3, 0, 16, 0},
		{5, first | refer | truncate | ioctl, 3, 0, 16, 0},
		{6, first | refer | truncate | ioctl, 3, 3, 24, 0},
		{7, first | refer | truncate | ioctl, 3, 3, 24, 5},
		{8, first | refer | truncate | ioctl, 3, 3, 24, 5},
		{99, first | refer | truncate | ioctl, 3, 3, 24, 5},
	} {
		for _, w := range []World{WorldNamespaces, WorldProcess} {
			p := makeLandlock(c.abi, w, root)
			wantNet := c.net
			if w == WorldNamespaces {
				wantNet = 0
			}
			if p.ABI != max(0, min(c.abi, 7)) || p.HandledFS != c.fs || p.HandledNet != wantNet || p.Scoped != c.scoped || p.AttrSize != c.attrSize || p.Flags != c.flags {
				t.Errorf("abi %d, %s: got %+v", c.abi, w, p)
			}
			if (len(p.Rules) == 0) != (c.abi < 1) || p.Rules == nil {
				t.Errorf("abi %d, %s: %d rules", c.abi, w, len(p.Rules))
			}
			const ofDirs = first&^7 | refer // the kernel refuses these in the rule of a file
			for _, r := range p.Rules {
				if r.Access == 0 || r.Access&^p.HandledFS != 0 || r.Kind == LandlockFile && r.Access&ofDirs != 0 {
					t.Errorf("abi %d, %s: %+v", c.abi, w, r)
				}
				const writes = first&^0b1101 | refer | truncate
				if r.Access&writes != 0 && filepath.Dir(r.Path) != "/dev" {
					t.Errorf("abi %d, %s: %s may be written", c.abi, w, r.Path)
				}
			}
			if p.Scratch&^p.HandledFS != 0 || p.Scratch&(unix.LANDLOCK_ACCESS_FS_MAKE_CHAR|unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK|ioctl) != 0 {
				t.Errorf("abi %d, %s: scratch %#x", c.abi, w, p.Scratch)
			}
			if c.abi >= 3 && p.Scratch != first&^0x840|refer|truncate {
				t.Errorf("abi %d, %s: scratch %#x", c.abi, w, p.Scratch)
			}
		}
	}
}

func TestLandlockRulesAreTheRootWithoutNamespaces(t *testing.T) {
	t.Parallel()
	python := Sources{Executable: "/home/ann/py/bin/python3", Roots: []string{"/home/ann/py"}}
	root := makeRoot(python, describedSystem(1001, []string{"/usr", "/home", "/home/ann/py", processors}, map[string]string{"/bin": "usr/bin"}))
	paths := func(w World) (dirs []string) {
		for _, r := range makeLandlock(7, w, root).Rules {
			if r.Kind == LandlockDir {
				dirs = append(dirs, r.Path)
			}
		}
		return dirs
	}
	if got, want := paths(WorldProcess), []string{"/home/ann/py", processors, "/usr"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := paths(WorldNamespaces), []string{"/", "/dev/pts"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLandlockHoldsWhatItGoverns(t *testing.T) {
	t.Parallel()
	const reads, writes, others = 0, 1, 3 // indices of guaranteeNames
	for abi, want := range [][]int{
		0: nil, 1: {reads}, 2: {reads}, 3: {reads, writes}, 4: {reads, writes}, 5: {reads, writes},
		6: {reads, writes, others}, 7: {reads, writes, others}, 8: {reads, writes, others},
	} {
		process, namespaces := landlockHolds(abi, WorldProcess), landlockHolds(abi, WorldNamespaces)
		for i, name := range guaranteeNames {
			if process[i] != slices.Contains(want, i) {
				t.Errorf("abi %d: %q: got %t", abi, name, process[i])
			}
			if namespaces[i] != (process[i] && i == writes) {
				t.Errorf("abi %d, with namespaces: %q: got %t", abi, name, namespaces[i])
			}
		}
	}
}

// enterLandlock is a program that enters a plan's Landlock domain, as a worker does, and prints the result of each probe as JSON.
const enterLandlock = `
import ctypes, errno, json, multiprocessing, os, signal, socket, stat, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
plan, world, scratch, outside, parent, port, abstract = json.loads(sys.argv[1]), *sys.argv[2:]
def check(result, step):
    assert result >= 0, (step, os.strerror(ctypes.get_errno()))
    return result
assert libc.prctl(38, 1, 0, 0, 0) == 0   # PR_SET_NO_NEW_PRIVS
assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0   # CAP_PERFMON, for one, reads environ past Landlock
attributes = struct.pack("QQQ", plan["handled_fs"], plan["handled_net"], plan["scoped"])
ruleset = check(libc.syscall(444, attributes, ctypes.c_size_t(plan["attr_size"]), 0), "landlock_create_ruleset")
rules = plan["rules"] + [{"path": scratch, "access": plan["scratch"], "kind": "dir"}]
rules += plan["own_proc"]
for rule in rules:
    try:
        fd = os.open(rule["path"], os.O_PATH | os.O_CLOEXEC)
    except OSError:
        continue
    if stat.S_ISDIR(os.fstat(fd).st_mode) == (rule["kind"] == "dir"):
        check(libc.syscall(445, ruleset, 1, struct.pack("=Qi", rule["access"], fd), 0), rule["path"])
    os.close(fd)
check(libc.syscall(446, ruleset, plan["flags"]), "landlock_restrict_self")
os.close(ruleset)

met = {}
def probe(name, call):
    try: call()
    except OSError as e: met[name] = errno.errorcode[e.errno]
    else: met[name] = "ok"
def read(path):
    with open(path, "rb") as f: f.read(1)
def write(path):
    with open(path, "wb", buffering=0) as f: f.write(b"x")
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s: s.connect(address)
def bind(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s: s.bind(address)
def seize():
    if libc.ptrace(0x4206, int(parent), 0, 0) < 0: raise OSError(ctypes.get_errno(), "")
def run(*command): subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
def semaphore(): multiprocessing.get_context("fork").Lock()
secret, mine = outside + "/secret", scratch + "/mine"
probe("read a secret", lambda: read(secret))
probe("list outside", lambda: os.listdir(outside))
probe("write outside", lambda: os.close(os.open(secret, os.O_WRONLY)))
probe("create outside", lambda: write(outside + "/new"))
probe("remove outside", lambda: os.unlink(outside + "/old"))
probe("truncate outside", lambda: os.truncate(outside + "/long", 1))
probe("list /proc", lambda: os.listdir("/proc"))
probe("environ of the parent", lambda: read(f"/proc/{parent}/environ"))
probe("trace the parent", seize)
probe("signal the parent", lambda: os.kill(int(parent), 0))
probe("abstract socket", lambda: connect(socket.AF_UNIX, "\0" + abstract))
probe("connect TCP", lambda: connect(socket.AF_INET, ("127.0.0.1", int(port))))
probe("bind TCP", lambda: bind(socket.AF_INET, ("127.0.0.1", 0)))
probe("device node", lambda: os.mknod(scratch + "/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3)))
probe("semaphore", semaphore)

probe("own file", lambda: (write(mine), os.truncate(mine, 0), read(mine)))
os.mkdir(scratch + "/dir")
probe("move", lambda: os.rename(mine, scratch + "/dir/moved"))
probe("links", lambda: (os.symlink("x", scratch + "/l"), os.mkfifo(scratch + "/f"), bind(socket.AF_UNIX, scratch + "/s")))
probe("remove", lambda: (os.unlink(scratch + "/l"), write(scratch + "/r"), os.unlink(scratch + "/r"), os.rmdir(scratch + "/dir") if not os.listdir(scratch + "/dir") else 0))
probe("passwd", lambda: read("/etc/passwd"))
probe("own proc", lambda: (read("/proc/self/maps"), os.listdir("/proc/self/fd"), read("/proc/cpuinfo"), read("/proc/meminfo")))
probe("/dev/null", lambda: (open("/dev/null").close(), open("/dev/null", "w").close(), read("/dev/urandom")))
probe("imports", lambda: __import__("sqlite3") and __import__("ssl") and __import__("asyncio") and __import__("lzma"))
probe("programs", lambda: (run("/bin/sh", "-c", "true"), run(sys.executable, "-Ic", "import json")))
probe("own child", lambda: (p := subprocess.Popen([sys.executable, "-Ic", "input()"], stdin=subprocess.PIPE)) and (p.send_signal(signal.SIGTERM), p.wait(), p.stdin.close()))
print(json.dumps(met))
`

func TestLandlockHoldsInTheKernel(t *testing.T) {
	t.Parallel()
	running := landlockABI()
	if running == 0 {
		skip.Without(t, "the kernel has no Landlock, or it is not among its active security modules")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	abstract := fmt.Sprintf("landlock-test-%d", os.Getpid())
	named, err := net.Listen("unix", "@"+abstract)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	root := makeRoot(testSources(t), ThisSystem())

	always := map[string]string{
		"write outside": "EACCES", "create outside": "EACCES", "remove outside": "EACCES", "trace the parent": "EPERM", "device node": "EACCES",
		"own file": "ok", "links": "ok", "remove": "ok", "own proc": "ok", "/dev/null": "ok", "imports": "ok", "programs": "ok", "own child": "ok",
	}
	for _, abi := range []int{1, 2, 3, 4, 6, running} { // the versions at which results change
		if abi > running {
			continue
		}
		since := func(first int, before, after string) string {
			if abi < first {
				return before
			}
			return after
		}
		for _, w := range []World{WorldNamespaces, WorldProcess} {
			want := maps.Clone(always)
			want["move"] = since(2, "EXDEV", "ok")
			want["truncate outside"] = since(3, "ok", "EACCES")
			want["signal the parent"] = since(6, "ok", "EPERM")
			want["abstract socket"] = since(6, "ok", "EPERM")
			for _, name := range []string{"passwd", "read a secret", "list outside", "list /proc", "connect TCP", "bind TCP"} {
				want[name] = "ok"
			}
			// A process in a domain may not trace processes outside of it, whatever the rules for /proc allow.
			want["environ of the parent"] = "EACCES"
			want["semaphore"] = "EACCES" // it needs /dev/shm, which is a link to scratch only in a worker's own root
			if w == WorldProcess {
				want["passwd"] = "EACCES" // it would show who has an account
				want["read a secret"], want["list outside"], want["list /proc"] = "EACCES", "EACCES", "EACCES"
				want["connect TCP"], want["bind TCP"] = since(4, "ok", "EACCES"), since(4, "ok", "EACCES")
			}

			scratch, outside := t.TempDir(), t.TempDir()
			for name, content := range map[string]string{"secret": "s", "old": "o", "long": "long"} {
				if err := os.WriteFile(filepath.Join(outside, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			plan, err := json.Marshal(makeLandlock(abi, w, root))
			if err != nil {
				t.Fatal(err)
			}
			out := runPython(t, enterLandlock, string(plan), string(w), scratch, outside, strconv.Itoa(os.Getpid()),
				strconv.Itoa(listener.Addr().(*net.TCPAddr).Port), abstract)
			var met map[string]string
			if err := json.Unmarshal([]byte(out), &met); err != nil {
				t.Fatalf("%v: %q", err, out)
			}
			if !maps.Equal(met, want) {
				for name := range want {
					if met[name] != want[name] {
						t.Errorf("abi %d, %s: %s: got %s, want %s", abi, w, name, met[name], want[name])
					}
				}
			}
		}
	}
}
