package confine

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

// testSources returns the sources of the python3 on PATH.
func testSources(t *testing.T) Sources {
	t.Helper()
	const ask = "import json, os, sys; print(json.dumps([os.path.realpath(sys.executable), sys.base_prefix, [p for p in sys.path if p]]))"
	out, err := exec.Command("python3", "-Ic", ask).Output()
	if err != nil {
		t.Fatal(err)
	}
	var python Sources
	var prefix string
	if err := json.Unmarshal(out, &[]any{&python.Executable, &prefix, &python.Paths}); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	python.Roots = []string{prefix}
	return python
}

// runPython runs a program in a directory of its own and returns its standard output.
func runPython(t *testing.T, source string, arguments ...string) string {
	t.Helper()
	python := testSources(t)
	dir := t.TempDir()
	main := dir + "/main.py" // multiprocessing needs the main program as a file
	if err := os.WriteFile(main, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, python.Executable, append([]string{"-I", main}, arguments...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, &stdout, &stderr, time.Second
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=/usr/bin:/bin"}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func runningProgram(t *testing.T, policy SeccompPolicy) []byte {
	t.Helper()
	if !hasSeccomp() {
		skip.Without(t, "the kernel has no seccomp filters")
	}
	program, err := SeccompProgram(runtime.GOARCH, policy)
	if err != nil {
		skip.Without(t, err.Error())
	}
	return program
}

// loadFilter is the beginning of a program that loads a filter. It first drops every capability, so that the probes do no harm if the
// filter fails: capabilities that a new user namespace gives then apply to that namespace only.
const loadFilter = `
import ctypes, errno, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0   # PR_SET_NO_NEW_PRIVS
assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
program = bytes.fromhex(sys.argv[1])
class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
filter = Program(len(program) // 8, program)
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, os.strerror(ctypes.get_errno())   # PR_SET_SECCOMP
def refused(call, *arguments):
    ctypes.set_errno(0)
    r = (call if callable(call) else lambda *a: libc.syscall(call, *a))(*arguments)
    return errno.errorcode[ctypes.get_errno()] if r == -1 else "ALLOWED"
`

func TestSeccompHoldsInTheKernel(t *testing.T) {
	t.Parallel()
	program := runningProgram(t, inNamespaces)
	const probes = loadFilter + `
import platform, socket
answers = {}
def probe(name, want, call, *arguments):
    got = refused(call, *arguments)
    if got != want: answers[name] = got
def family(number, kind, want):
    try: socket.socket(number, kind, 0).close(); got = "ALLOWED"
    except OSError as e: got = errno.errorcode[e.errno]
    if got != want: answers["family %d" % number] = got
if platform.machine() == "x86_64":
    numbers = {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "keyctl": 250, "add_key": 248, "request_key": 249,
        "kexec_load": 246, "init_module": 175, "finit_module": 313, "delete_module": 176, "swapon": 167, "reboot": 169, "iopl": 172, "acct": 163,
        "quotactl": 179, "open_by_handle_at": 304, "name_to_handle_at": 303, "fanotify_init": 300, "lookup_dcookie": 212, "move_pages": 279,
        "vhangup": 153, "syslog": 103, "clock_settime": 227, "settimeofday": 164}
    for name, number in numbers.items():
        probe(name, "EPERM", number, *((0, 0, 0, 0) if name in ("reboot", "kexec_load") else (-1, 0, 0, 0)))
    probe("x32", "ENOSYS", 0x40000000 | 39)
    probe("modify_ldt", "EPERM", 154, 0, 0, 0)
    probe("kcmp", "EPERM", 312, os.getpid(), os.getpid(), 0, 0, 1)
    probe("pivot_root", "EPERM", 155, b"/tmp", b"/tmp")
    import mmap
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")   # mov eax, 20 (getpid of i386); int 0x80; ret
    child = os.fork()
    if child == 0:
        os._exit(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() != -errno.ENOSYS)
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):   # killed by a kernel without that ABI
        answers["int 0x80"] = status
probe("personality", "EPERM", libc.personality, 0x0040000)
probe("unshare user", "EPERM", libc.unshare, 0x10000000)
probe("unshare mount", "EPERM", libc.unshare, 0x20000)
probe("setns", "EPERM", libc.setns, 0, 0)
probe("mount", "EPERM", libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)
probe("umount", "EPERM", libc.umount2, b"/tmp", 2)
probe("chroot", "EPERM", libc.chroot, b"/tmp")
probe("fsopen", "EPERM", 430, b"tmpfs", 0)
probe("open_tree", "EPERM", 428, -100, b"/", 1)
probe("ptrace", "EPERM", libc.ptrace, 0x4206, os.getppid(), 0, 0)
probe("process_vm_readv", "EPERM", libc.process_vm_readv, os.getppid(), None, 0, None, 0, 0)
probe("pidfd_getfd", "EPERM", 438, 3, 0, 0)
probe("clone3", "ENOSYS", 435, None, 0)
probe("a call to come", "ENOSYS", 4000)
probe("shmget", "EPERM", libc.shmget, 0x5eed, 4096, 0)
probe("prlimit of the parent", "EPERM", libc.prlimit, os.getppid(), 7, None, None)
family(40, socket.SOCK_STREAM, "EAFNOSUPPORT"); family(16, socket.SOCK_RAW, "EAFNOSUPPORT"); family(38, socket.SOCK_SEQPACKET, "EAFNOSUPPORT")
family(31, socket.SOCK_RAW, "EAFNOSUPPORT"); family(44, socket.SOCK_RAW, "EAFNOSUPPORT"); family(2, socket.SOCK_RAW, "EPERM")
print(json.dumps(answers))
`
	var wrong map[string]any
	out := runPython(t, probes, hex.EncodeToString(program))
	if err := json.Unmarshal([]byte(out), &wrong); err != nil || len(wrong) != 0 {
		t.Errorf("wrong answers: %s", out)
	}
}

func TestSeccompLeavesPythonWorking(t *testing.T) {
	t.Parallel()
	program := runningProgram(t, inNamespaces)
	const work = loadFilter + `
import asyncio, concurrent.futures, mmap, multiprocessing, resource, shutil, signal, socket, sqlite3, ssl, subprocess, tempfile, threading, time
def double(x): return 2 * x
def main():
    seen = []
    threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sorted(seen) == [0, 1, 2, 3]
    assert subprocess.run("echo one | cat", shell=True, capture_output=True, text=True).stdout == "one\n"
    assert subprocess.check_output([sys.executable, "-c", "print(2)"]) == b"2\n"
    for method in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(method).Pool(2) as pool: assert pool.map(double, range(4)) == [0, 2, 4, 6]
    with multiprocessing.Manager() as manager: assert manager.list([1])[0] == 1
    with concurrent.futures.ProcessPoolExecutor(1) as pool: assert pool.submit(double, 4).result() == 8
    async def talk():
        async def answer(r, w): w.write(await r.readline()); await w.drain(); w.close()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
        w.write(b"hi\n"); assert await r.readline() == b"hi\n"
        w.close(); server.close()
        p = await asyncio.create_subprocess_exec("true"); assert await p.wait() == 0
    asyncio.run(talk())
    a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
    assert socket.getaddrinfo("127.0.0.1", 80)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo("localhost", 80, flags=socket.AI_ADDRCONFIG)
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "f")
        with open(path, "w+b") as f: f.truncate(4096); mmap.mmap(f.fileno(), 4096)[:2] = b"ab"
        shutil.copy2(path, path + "2"); os.rename(path, path + "3"); os.symlink("x", path); os.chmod(path + "3", 0o600); os.utime(path + "3")
        db = sqlite3.connect(os.path.join(d, "db")); db.execute("create table t(x)"); db.execute("insert into t values (1)"); db.commit()
        assert db.execute("select * from t").fetchall() == [(1,)]
    assert ssl.create_default_context() and ssl.RAND_bytes(8)
    begin = time.monotonic(); time.sleep(0.01); assert time.monotonic() - begin >= 0.01 and time.time() > 0 and time.get_clock_info("time")
    signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)
    os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0)); os.getloadavg(); os.cpu_count(); os.urandom(8)
    os.close(os.pidfd_open(os.getpid())); assert refused(libc.personality, 0xffffffff) == "ALLOWED"
    print("works")
if __name__ == "__main__": main()
`
	if out := runPython(t, work, hex.EncodeToString(program)); out != "works\n" {
		t.Errorf("got %q", out)
	}
	none := runningProgram(t, amongProcesses)
	out := runPython(t, loadFilter+`
import asyncio, socket
a, b = socket.socketpair()
async def main(): return await asyncio.to_thread(lambda: "works")
print(asyncio.run(main()))
try: socket.create_connection(("127.0.0.1", 9))
except OSError as e: print(repr(e))
`, hex.EncodeToString(none))
	if want := "works\nPermissionError(13, 'Permission denied')\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// Without the filter python/attempts.py reports what it could do; with the filter it does not. So it notices when the filter fails.
func TestProbeNoticesOpenDoors(t *testing.T) {
	t.Parallel()
	attempts, err := os.ReadFile("../../python/attempts.py")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	host := mustJSON(map[string]any{"directory": dir, "secret": dir + "/secret", "socket": "", "abstract": "none", "port": 1, "pid": os.Getpid(), "seccomp": true})
	const loads = `
import os, socket
if PROGRAM:
    import sys; sys.argv[1:] = [PROGRAM]
    exec(LOAD)
elif os.getuid() == 0:   # what nothing confines runs as an ordinary user
    import ctypes, errno, json, mmap, os, resource, signal, stat, struct, subprocess, threading, time
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
`
	run := func(program string) (could map[string][]string) {
		out := runPython(t, "PROGRAM, LOAD, HOST = "+mustJSON(program)+", "+mustJSON(loadFilter)+", "+mustJSON(host)+loads+string(attempts))
		if err := json.Unmarshal([]byte(out), &could); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return could
	}
	doors := []string{"put another layer on TCP (TCP_ULP)"} // every kernel has it since Linux 4.13
	for what, socket := range map[string][3]int{
		"use the kernel's ciphers (AF_ALG)": {unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, "speak RxRPC (AF_RXRPC)": {unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET},
		"set up IPsec (NETLINK_XFRM)": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
	} {
		if fd, err := unix.Socket(socket[0], socket[1], socket[2]); err == nil {
			_ = unix.Close(fd)
			doors = append(doors, what)
		}
	}
	open := run("")["privilege"]
	for _, door := range doors {
		if !slices.Contains(open, door) {
			t.Errorf("unconfined it could %q, and not %s", open, door)
		}
	}
	for _, policy := range []SeccompPolicy{inNamespaces, amongProcesses} {
		shut := run(hex.EncodeToString(runningProgram(t, policy)))["privilege"]
		for _, door := range doors {
			if slices.Contains(shut, door) {
				t.Errorf("with the filter of %s it could %s", policy.World, door)
			}
		}
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}
