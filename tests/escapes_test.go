package tests

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// world is a system that people run Caddy on.
type world struct {
	name       string
	root       bool
	namespaces bool // Docker's and Kubernetes' default seccomp profile refuses them
}

var worlds = []world{
	{"root", true, true},
	{"ordinary user", false, true},
	{"root without namespaces", true, false},
	{"ordinary user without namespaces", false, false},
}

// inEachWorld runs a test with a Caddy of each world, all at once: they share nothing, and what one finds of another is a fault, too. The
// interpreter is one that every user may run.
func inEachWorld(t *testing.T, directive string, test func(t *testing.T, c *caddy)) {
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			o := caddyOptions{directive: "python " + systemPython(t) + "\n" + directive, noNamespaces: !w.namespaces}
			need(t, !w.root || os.Geteuid() == 0, needsRoot)
			if !w.root {
				o.credential = ordinaryUser()
			}
			test(t, startCaddy(t, o))
		})
	}
}

// escapeCase is a program that tries to get out, prints BLOCKED or ESCAPED, and does no harm where the wall is missing.
type escapeCase struct {
	runCase
	Guarantee string `json:"guarantee"`
}

func readCases(t *testing.T, path string) []escapeCase {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []escapeCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// In every world no program gets out, and ordinary programs do not notice what holds them.
func TestEscapes(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		held := c.guarantees()
		for _, name := range []string{"escape", "escape-more", "execute"} {
			for _, ec := range readCases(t, "cases/"+name+".json") {
				t.Run(name+"/"+ec.ID, func(t *testing.T) {
					if ec.Guarantee != "" && len(held[ec.Guarantee]) == 0 {
						t.Errorf("/health names no layer that holds %q", ec.Guarantee)
					}
					tryCase(t, c, ec.runCase)
				})
			}
		}
		c.expectNoScratch()
	})
}

// guarantees returns what /health says: the layers that hold each.
func (c *caddy) guarantees() map[string][]string {
	c.Helper()
	h, err := c.health()
	if err != nil {
		c.Fatal(err)
	}
	var body struct {
		Guarantees []struct {
			Name   string   `json:"name"`
			Layers []string `json:"layers"`
		} `json:"guarantees"`
	}
	if err := json.Unmarshal(h.Raw, &body); err != nil {
		c.Fatal(err)
	}
	held := map[string][]string{}
	for _, g := range body.Guarantees {
		held[g.Name] = g.Layers
	}
	return held
}

// expectNoScratch waits until the host's temporary directory holds no file of any run. Parked workers may have a directory
// each, with the empty file that their program will be in.
func (c *caddy) expectNoScratch() {
	c.Helper()
	c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(1) && h.Workers["booting"] == 0 })
	var files []string
	look := func() bool {
		files = nil
		_ = filepath.WalkDir(c.tmp(), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "main.py" {
				if info, err := d.Info(); err == nil && info.Size() == 0 {
					return nil
				}
			}
			if err == nil && filepath.Base(filepath.Dir(path)) == "bin" && strings.HasPrefix(d.Name(), "python") {
				return nil // the server's own commands, which no run may write to
			}
			if err != nil || !d.IsDir() {
				files = append(files, path)
			}
			return nil
		})
		return len(files) == 0
	}
	for begin := time.Now(); !look(); time.Sleep(20 * time.Millisecond) {
		if late(wholeWithin, begin) {
			c.Fatalf("%d files are left in the temporary directory: %.500v", len(files), files)
		}
	}
}

// outside are things of the host that the test makes and that everybody may reach who is not confined.
type outside struct {
	dir, secret, writable, fifo, socket, abstract, tcp, udp, shm string
	bystander                                                    *exec.Cmd
	reached                                                      chan string
}

func makeOutside(t *testing.T, c *caddy) *outside {
	t.Helper()
	dir := sharedDir(t)
	o := &outside{
		dir: dir, secret: filepath.Join(dir, "secret"), writable: filepath.Join(dir, "writable"), fifo: filepath.Join(dir, "fifo"),
		socket: filepath.Join(dir, "socket"), abstract: "@" + filepath.Base(dir),
		shm: filepath.Join("/dev/shm", filepath.Base(dir)), reached: make(chan string, 100),
	}
	for _, path := range []string{o.secret, o.shm} {
		if err := os.WriteFile(path, []byte("the secret of the host"), 0o666); err != nil { // that is the point
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(o.shm) })
	mkdirFor(t, o.writable, 0o777, c.o.credential)
	if err := syscall.Mkfifo(o.fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	listen := func(network, address string) string {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				o.reached <- network + " " + address
				_ = conn.Close()
			}
		}()
		return l.Addr().String()
	}
	listen("unix", o.socket)
	listen("unix", o.abstract)
	o.tcp = listen("tcp", "127.0.0.1:0")
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = packets.Close() })
	o.udp = packets.LocalAddr().String()
	go func() {
		for b := make([]byte, 16); ; {
			if _, _, err := packets.ReadFrom(b); err != nil {
				return
			}
			o.reached <- "udp"
		}
	}()
	for _, path := range []string{o.writable, o.fifo, o.socket} {
		if err := os.Chmod(path, 0o777); err != nil { // that is the point
			t.Fatal(err)
		}
	}
	// A process of the very user that Caddy runs as.
	o.bystander = exec.Command("sleep", "600")
	o.bystander.Env = []string{"SECRET=of-the-bystander"}
	if c.o.credential != nil {
		o.bystander.SysProcAttr = &syscall.SysProcAttr{Credential: c.o.credential}
	}
	if err := o.bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.bystander.Process.Kill(); _ = o.bystander.Wait() })
	return o
}

// What the host shows to everybody it does not show to a program, even to one that knows where to look.
func TestHostIsOutOfReach(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		o := makeOutside(t, c)
		addresses, err := json.Marshal(map[string]any{
			"read":   []string{o.secret, o.shm, o.fifo, c.configFile, c.dir, c.tmp(), c.o.home, o.dir, caddyBinary},
			"write":  []string{o.secret, o.shm, o.fifo, c.configFile, caddyBinary},
			"create": []string{o.writable, c.o.home, c.tmp(), "/tmp/../" + o.writable},
			"unix":   []string{o.socket, strings.Replace(o.abstract, "@", "\x00", 1)},
			"tcp":    []string{o.tcp, c.addr, c.admin}, "udp": []string{o.udp},
			"pids": []int{o.bystander.Process.Pid, c.pid(), os.Getpid()},
		})
		if err != nil {
			t.Fatal(err)
		}
		a := c.run(fmt.Sprintf("import json\nhost = json.loads(%q)\n", addresses) + reachForTheHost)
		if a.Stdout != "reached []\n" || a.Stderr != "" {
			t.Errorf("%s%s", a.Stdout, a.Stderr)
		}
		select {
		case what := <-o.reached:
			t.Errorf("a program has reached %s", what)
		case <-time.After(100 * time.Millisecond):
		}
		if n := entries(t, o.writable); n > 0 {
			t.Errorf("%d files have been made in a directory of the host", n)
		}
	})
}

const reachForTheHost = `
import ctypes, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
reached = []
def attempt(what, call):
    try:
        r = call()
    except (OSError, ValueError): return
    if not (isinstance(r, int) and r < 0): reached.append(what)
def unix(name, kind):
    with socket.socket(socket.AF_UNIX, kind) as s: s.settimeout(1); s.connect(name)
def address(a): return a.rpartition(":")[0], int(a.rpartition(":")[2])
def tcp(a):
    with socket.socket() as s: s.settimeout(1); s.connect(address(a))
def fast_open(a):
    with socket.socket() as s: s.settimeout(1); s.sendto(b"x", 0x20000000, address(a))
def udp(a):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(address(a)); s.send(b"x"); s.settimeout(.2); s.recv(1)
for p in host["read"]:
    attempt("read " + p, lambda: os.listdir(p) if os.path.isdir(p) else os.read(os.open(p, os.O_RDONLY | os.O_NONBLOCK), 1))
for p in host["write"]: attempt("write " + p, lambda: os.open(p, os.O_WRONLY | os.O_NONBLOCK))
for p in host["create"]: attempt("create in " + p, lambda: os.open(p + "/zz_probe", os.O_WRONLY | os.O_CREAT))
for n in host["unix"]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET): attempt("unix " + repr(n), lambda: unix(n, kind))
for a in host["tcp"]: attempt("tcp " + a, lambda: tcp(a)); attempt("fast open " + a, lambda: fast_open(a))
for a in host["udp"]: attempt("udp " + a, lambda: udp(a))
for p in host["pids"]:
    attempt(f"signal {p}", lambda: os.kill(p, 0))
    attempt(f"nice {p}", lambda: libc.setpriority(0, p, os.getpriority(0, p)))
    attempt(f"limits {p}", lambda: resource.prlimit(p, resource.RLIMIT_NOFILE))
    attempt(f"trace {p}", lambda: libc.ptrace(0x4206, p, 0, 0))
    attempt(f"pidfd {p}", lambda: libc.syscall(424, os.pidfd_open(p), 0, None, 0))
    for f in ("environ", "cmdline", "maps", "mem", "status"): attempt(f"{f} {p}", lambda: os.open(f"/proc/{p}/{f}", os.O_RDONLY))
    for f in ("root", "cwd", "fd"): attempt(f"{f} {p}", lambda: os.listdir(f"/proc/{p}/{f}"))
print("reached", reached)
`

// The end of a run is the end of all that it started.
func TestNothingOutlivesItsRun(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		for _, s := range []struct{ name, code string }{
			{"daemon", "if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    os.closerange(0, 64); time.sleep(60)"},
			// Each of its generations is gone before it can be found.
			{"moving target", "if os.fork() == 0:\n    end = time.monotonic() + 30\n    while time.monotonic() < end:\n        try:\n            if os.fork(): os._exit(0)\n        except OSError: pass\n    os._exit(0)"},
			{"two moving targets", "for _ in range(2):\n    if os.fork() == 0:\n        os.setsid(); end = time.monotonic() + 30\n        while time.monotonic() < end:\n            try:\n                if os.fork(): os._exit(0)\n            except OSError: pass\n        os._exit(0)"},
			{"stopped", "for _ in range(5):\n    if os.fork() == 0: os.setsid(); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60); os._exit(0)"},
			{"traced", "libc.ptrace.argtypes = [ctypes.c_long] * 4\nchild = os.fork()\nif child == 0: libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60); os._exit(0)"},
			{"threads", "import threading\nfor _ in range(5): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"},
			{"vfork", "import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)"},
			{"deaf", "for s in signal.valid_signals() - {9, 19}: signal.signal(s, signal.SIG_IGN)\nif os.fork() == 0: os.setsid(); time.sleep(60); os._exit(0)"},
			{"killed itself", "if os.fork() == 0: os.setsid(); time.sleep(60); os._exit(0)\nos.kill(os.getpid(), 9)"},
		} {
			t.Run(s.name, func(t *testing.T) {
				c := *c
				c.TB = t
				// A name that all of its processes inherit, an exec apart.
				mark := fmt.Sprintf("zz-%d", time.Now().UnixNano()%1e9)
				a := c.run("import ctypes, os, signal, sys, time\nlibc = ctypes.CDLL(None)\nlibc.prctl(15, b'" + mark + "', 0, 0, 0)\n" + s.code + "\nprint('done', flush=True)\n")
				expectWithin(t, 3*time.Second, a.began, a.took, "the answer")
				if s.name != "killed itself" && a.Stdout != "done\n" {
					t.Errorf("%s", a.raw)
				}
				eventually(t, time.Second, "no process of the run", func() bool {
					for _, p := range processes(t) {
						if p.name == mark || p.name == "sleep" && slices.ContainsFunc(descendants(t, c.pid()), func(d process) bool { return d.pid == p.pid }) {
							return false
						}
					}
					return true
				})
			})
		}
		c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(1) })
	})
}

// withoutNamespaces is set in the environment of this very program when it is to start its arguments in the place of
// itself, without the right to namespaces.
const withoutNamespaces = "SANDBOX_TEST_WITHOUT_NAMESPACES"

// withoutTracing is set besides when it is to be without the right to trace, too.
const withoutTracing = "SANDBOX_TEST_WITHOUT_TRACING"

func init() {
	if os.Getenv(withoutNamespaces) == "" {
		return
	}
	if err := os.Unsetenv(withoutNamespaces); err != nil {
		panic(err)
	}
	// Until main begins this goroutine is locked to its thread, which is the one that turns into Caddy.
	if err := refuseNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "refusing namespaces:", err)
		os.Exit(1)
	}
	err := syscall.Exec(os.Args[1], os.Args[1:], os.Environ()) // the binary under test
	fmt.Fprintln(os.Stderr, "starting", os.Args[1]+":", err)
	os.Exit(1)
}

// refuseNamespaces makes this thread live as in a container of Docker's: its seccomp profile as far as namespaces and
// mounts go, and its capabilities.
func refuseNamespaces() error {
	const docker = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID |
		1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT |
		1<<unix.CAP_MKNOD | 1<<unix.CAP_AUDIT_WRITE | 1<<unix.CAP_SETFCAP
	if os.Geteuid() == 0 {
		for capability := range unix.CAP_LAST_CAP + 1 {
			if docker>>capability&1 == 0 {
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
					return fmt.Errorf("dropping capability %d: %w", capability, err)
				}
			}
		}
	} else if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	var program []unix.SockFilter
	statement := func(code uint16, k uint32) { program = append(program, unix.SockFilter{Code: code, K: k}) }
	// when skips the next instruction, or the next n, unless the comparison holds.
	when := func(test uint16, k uint32, n uint8) {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jf: n, K: k})
	}
	refuse := func(errno unix.Errno) { statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(errno)) }
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	statement(load, 0) // the number of the call
	if os.Getenv(withoutTracing) != "" {
		when(unix.BPF_JEQ, unix.SYS_PTRACE, 1)
		refuse(unix.EPERM)
	}
	for _, number := range []uint32{
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
		unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
	} {
		when(unix.BPF_JEQ, number, 1)
		refuse(unix.EPERM)
	}
	when(unix.BPF_JEQ, unix.SYS_CLONE3, 1) // the flags lie behind a pointer
	refuse(unix.ENOSYS)
	when(unix.BPF_JEQ, unix.SYS_CLONE, 3)
	statement(load, 16) // its first argument
	when(unix.BPF_JSET, unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWNET, 1)
	refuse(unix.EPERM)
	statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("loading the filter: %w", errno)
	}
	return nil
}

// refuseNamespacesTo makes a command start without the right to namespaces.
func refuseNamespacesTo(cmd *exec.Cmd) {
	cmd.Args = append([]string{"/proc/self/exe", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/proc/self/exe" // which another user may run too, wherever go test has put it
	cmd.Env = append(cmd.Env, withoutNamespaces+"=1")
}
