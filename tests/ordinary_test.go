package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// In every world the standard streams can be opened by their names, by a program and by what it starts.
func TestStandardStreamsByName(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		const code = `
import os, subprocess, sys
print("first", flush=True)
with open("/dev/stdout", "w") as f: f.write("by its name\n")
with open("/dev/stderr", "a") as f: f.write("an error\n")
with open("/proc/self/fd/1", "w") as f: f.write("by its number\n")
with open("/dev/fd/1", "w") as f: f.write("by the other name\n")
with open("/dev/stdin") as f: print("read", f.read().strip(), flush=True)
for shell in ("echo from a shell > /dev/stdout", "echo from a shell > /proc/self/fd/1", "echo an error of a shell > /dev/stderr", "echo through tee | tee /dev/stderr"):
    subprocess.run(shell, shell=True, check=True)
os.system("exec 5> /dev/stdout; echo kept open >&5")
`
		for range 3 { // each run has pipes of its own
			a, err := c.execute(t.Context(), map[string]any{"code": code, "stdin": "what was sent\n"})
			if err != nil {
				t.Fatal(err)
			}
			const out = "first\nby its name\nby its number\nby the other name\nread what was sent\nfrom a shell\nfrom a shell\nthrough tee\nkept open\n"
			if a.Stdout != out || a.Stderr != "an error\nan error of a shell\nthrough tee\n" || a.ExitCode != 0 {
				t.Errorf("%s", a.raw)
			}
		}
		c.mustPrint("print(open('/dev/stdin').read() == '')", "True\n")
	})
}

// askPython starts children by each name of the interpreter. They are to be the program's own, with all that it can import.
const askPython = `
import json, os, shutil, subprocess, sys
ask = "import json, os, sys; print(json.dumps([sys.version, sys.prefix, sys.base_prefix, sys.path[1:], sys.executable]))"
own = json.loads(subprocess.check_output([sys.executable, "-c", ask]))
assert own[4] == sys.executable and own[1] == sys.prefix, own
for command in (["python3", "-c", ask], ["python", "-c", ask], ["/usr/bin/env", "python3", "-c", ask], ["sh", "-c", "exec python -c '%s'" % ask]):
    child = json.loads(subprocess.check_output(command))
    same_file = os.path.dirname(child[4]) == os.path.dirname(sys.executable)
    print(child[:4] == own[:4] and same_file, *([] if child[:4] == own[:4] and same_file else [command[:2], child, own]))
open("s.py", "w").write("import sys; print(sys.argv[1:]); sys.exit(3)")
done = subprocess.run(["python", "s.py", "a b", "$c", "'"], capture_output=True, text=True)
print(done.stdout.strip(), done.returncode, done.stderr.strip())
`

const askedPython = "True\nTrue\nTrue\nTrue\n['a b', '$c', \"'\"] 3 \n"

// In every world python3 and python are the configured interpreter, whatever lies beside it.
func TestChildrenAreTheSamePython(t *testing.T) {
	t.Parallel()
	system := systemPython(t)
	dir := interpreterDir(t)
	inVenv := venv(t, filepath.Join(dir, "venv"), nil)
	copies := filepath.Join(dir, "copies")
	if out, err := exec.Command(system, "-m", "venv", "--without-pip", "--copies", copies).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// A directory whose python3 is another one, as /usr/bin is for python3.14, and that says ' in its name.
	odd := filepath.Join(dir, "it's odd")
	if err := os.Mkdir(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(system)
	if err != nil {
		t.Fatal(err)
	}
	chosen := filepath.Join(odd, "python3.99")
	if err := os.Symlink(real, chosen); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(odd, "python3"), []byte("#!/bin/sh\necho another\n"), 0o755); err != nil { // for everybody to run
		t.Fatal(err)
	}
	for name, python := range map[string]string{"system": system, "venv": inVenv, "venv of copies": filepath.Join(copies, "bin", "python3"), "beside another": chosen} {
		for _, w := range worlds {
			t.Run(name+"/"+w.name, func(t *testing.T) {
				if w.root && os.Geteuid() != 0 {
					t.Skip("only root can start Caddy as root")
				}
				o := caddyOptions{directive: fmt.Sprintf("python %q", python), noNamespaces: !w.namespaces}
				if !w.root {
					o.credential = ordinaryUser()
				}
				c := startCaddy(t, o)
				c.mustPrint(askPython, askedPython)
				if name == "venv" {
					c.mustPrint("import subprocess; print(subprocess.check_output(['python3', '-c', 'import only_in_this_venv as v; print(v.WORD)'], text=True))", "from the venv\n\n")
				}
				if name != "beside another" {
					c.mustPrint("import os, sys; print(os.environ['PATH'].split(':')[0] == os.path.dirname(sys.executable))", "True\n")
				}
				// The names that were made for it are nothing that a run can change.
				c.mustPrint(`
import os, shutil
for name in ("python", "python3"):
    path = shutil.which(name)
    for attempt in (lambda: open(path, "w"), lambda: os.unlink(path), lambda: os.rename(path, path + "2"), lambda: open(os.path.dirname(path) + "/ls", "w")):
        try: attempt(); print("changed", path)
        except OSError: pass
`, "")
			})
		}
	}
}

// A shim stands for an interpreter elsewhere (pyenv and kin): its own directory is the one that counts.
func TestChildrenAreThePythonBehindAShim(t *testing.T) {
	t.Parallel()
	startCaddy(t, caddyOptions{}).mustPrint(askPython, askedPython)
}

// Programs that talk over sockets set options, and find those that ordinary programs set.
func TestOrdinarySocketOptions(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		c.mustPrint(`
import os, socket, struct
for s in (*socket.socketpair(), *(socket.socketpair(type=socket.SOCK_DGRAM) if os.getppid() == 1 else socket.socketpair())):
    for name in (socket.SO_REUSEADDR, socket.SO_KEEPALIVE, socket.SO_SNDBUF, socket.SO_RCVBUF, socket.SO_PASSCRED, socket.SO_RCVLOWAT):
        s.setsockopt(socket.SOL_SOCKET, name, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO): s.setsockopt(socket.SOL_SOCKET, name, struct.pack("ll", 1, 0))
    try: s.setsockopt(socket.SOL_SOCKET, 26, b"")
    except OSError as e: print(e.strerror)
`, "Protocol not available\nProtocol not available\nProtocol not available\nProtocol not available\n")
		if c.o.noNamespaces {
			return // there are no others
		}
		c.mustPrint(`
import asyncio, http.client, http.server, multiprocessing.connection, socket, socketserver, threading, urllib.request, xmlrpc.client, xmlrpc.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"page")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port).read().decode())
async def talk():
    async def answer(reader, writer): writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
    for options in ({"reuse_port": True}, {"reuse_address": True}, {}):
        s = await asyncio.start_server(answer, "127.0.0.1", 0, **options)
        reader, writer = await asyncio.open_connection(*s.sockets[0].getsockname())
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(b"hello\n"); print((await reader.readline()).decode().strip()); writer.close(); s.close()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), allow_broadcast=True, reuse_port=True)
    transport.close()
asyncio.run(talk())
with multiprocessing.connection.Listener(("127.0.0.1", 0)) as listener:
    client = multiprocessing.connection.Client(listener.address); other = listener.accept(); client.send([1, 2]); print(other.recv())
with socket.create_server(("::1", 0), family=socket.AF_INET6, reuse_port=True) as s, socket.create_connection(s.getsockname()[:2]) as c:
    for level, names in ((socket.IPPROTO_TCP, (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT, socket.TCP_QUICKACK, socket.TCP_CORK, socket.TCP_NOTSENT_LOWAT)),
                         (socket.IPPROTO_IPV6, (socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS))):
        for name in names: c.setsockopt(level, name, 5); assert c.getsockopt(level, name) >= 0
print("done")
`, "page\nHELLO\nHELLO\nHELLO\n[1, 2]\ndone\n")
	})
}

// What shows the stack of a program shows the program, and nothing that it was started by.
func TestStacksAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	pythons := map[string]caddyOptions{"configured": {}}
	for _, python := range otherPythons(t) {
		pythons[python] = caddyOptions{directive: "python " + python}
	}
	for name, o := range pythons {
		t.Run(name, func(t *testing.T) { tryStacks(t, startCaddy(t, o)) })
	}
	inEachWorld(t, "", tryStacks)
}

// otherPythons are interpreters of other versions that lie beside the configured one, as version managers keep them.
func otherPythons(t *testing.T) (found []string) {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import os, sys; print(os.path.realpath(sys.prefix))").Output()
	if err != nil {
		t.Fatal(err)
	}
	beside, err := filepath.Glob(filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "*", "bin", "python3"))
	if err != nil {
		t.Fatal(err)
	}
	for _, python := range beside {
		if exec.Command(python, "-c", "import sys, json; sys.exit(sys.version_info < (3, 10))").Run() == nil {
			found = append(found, python)
		}
	}
	return found
}

func tryStacks(t *testing.T, c *caddy) {
	for _, s := range []struct{ name, code, want string }{
		{"dump", "import faulthandler\ndef f(): faulthandler.dump_traceback(all_threads=False)\nf()", "Stack (most recent call first):\n  File \"main.py\", line 2 in f\n  File \"main.py\", line 3 in <module>\n"},
		{"abort", "import faulthandler, os\nfaulthandler.enable()\ndef f(): os.abort()\nf()", "  File \"main.py\", line 3 in f\n  File \"main.py\", line 4 in <module>\n"},
		{"segmentation fault", "import faulthandler, ctypes\nfaulthandler.enable()\nctypes.string_at(0)", "in string_at\n  File \"main.py\", line 3 in <module>\n"},
		{"later", "import faulthandler, time\nfaulthandler.dump_traceback_later(0.05)\ntime.sleep(0.5)", "  File \"main.py\", line 3 in <module>\n"},
		{"print_stack", "import traceback\ntraceback.print_stack()", "  File \"main.py\", line 2, in <module>\n    traceback.print_stack()\n"},
		{"inspect", "import inspect, sys\nsys.stderr.write(str([f.filename for f in inspect.stack()] + [sys._getframe().f_back]))", "['main.py', None]"},
		{"all threads", "import sys, traceback\nfor f in sys._current_frames().values(): traceback.print_stack(f)", "  File \"main.py\", line 2, in <module>\n    for f in sys._current_frames().values(): traceback.print_stack(f)\n"},
		{"at exit", "import atexit, faulthandler\n@atexit.register\ndef f(): faulthandler.dump_traceback(all_threads=False)", "Stack (most recent call first):\n  File \"main.py\", line 3 in f\n"},
		{"finalizer", "import faulthandler\nclass A:\n    def __del__(self, d=faulthandler.dump_traceback): d(all_threads=False)\na = A()", "Stack (most recent call first):\n  File \"main.py\", line 3 in __del__\n"},
		{"hook", "import sys, faulthandler\ndef f(*_): faulthandler.dump_traceback(all_threads=False)\nsys.excepthook = f\n1/0", "Stack (most recent call first):\n  File \"main.py\", line 2 in f\n"},
		{"hook that fails", "import sys\ndef f(*_): 1/0\nsys.excepthook = f\nx", "another exception occurred:\n\nTraceback (most recent call last):\n  File \"main.py\", line 2, in f\n"},
		{"flush", "import sys, faulthandler\nclass S:\n    closed = False\n    def write(self, s): pass\n    def flush(self, d=faulthandler.dump_traceback, f=sys.__stderr__): d(f, all_threads=False)\nsys.stdout = S()", "Stack (most recent call first):\n  File \"main.py\", line 5 in flush\n"},
		{"exception", "def f(): 1/0\ntry: f()\nfinally: import os", "Traceback (most recent call last):\n  File \"main.py\", line 2, in <module>\n"},
		{"tracer", "import sys\nsys.settrace(lambda f, e, a: sys.stderr.write(f.f_code.co_name + ' ' + str(f.f_back and f.f_back.f_code.co_name) + '\\n') and None)\ndef f(): pass\nf()\nsys.settrace(None)", "f <module>\n"},
	} {
		t.Run(s.name, func(t *testing.T) {
			a := c.run(s.code)
			if !strings.Contains(a.Stderr, s.want) {
				t.Errorf("got %q, want %q", a.Stderr, s.want)
			}
			for _, ours := range []string{"_sandbox", "worker.py", "lane.py", "template.py", "<string>", "in serve", "in main"} {
				if strings.Contains(a.Stderr, ours) {
					t.Errorf("shows %q: %s", ours, a.Stderr)
				}
			}
		})
	}
	// Programs that depend on the frame below, and much that runs after it is gone.
	c.mustPrint(`
import asyncio, gc, logging, sys, threading, warnings
warnings.warn("top", stacklevel=3)
logging.basicConfig(stream=sys.stdout, format="%(filename)s:%(lineno)d %(message)s"); logging.warning("logged", stacklevel=4)
exec("print(sorted(k for k in locals() if k == 'gc'))"); print(eval("[x for x in (1, 2)]"))
def recurse(n): return recurse(n + 1)
try: recurse(0)
except RecursionError: print("deep")
t = threading.Thread(target=lambda: print("thread")); t.start(); t.join()
print(asyncio.run(asyncio.sleep(0, "slept")))
def g():
    yield sys._getframe().f_back.f_code.co_name
print(next(g())); gc.collect()
sys.exit(0)
`, "main.py:4 logged\n['gc']\n[1, 2]\ndeep\nthread\nslept\n<module>\n")
}

// A script that a program writes, and makes one that can be started, can be.
func TestOwnScriptsCanBeStarted(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		c.mustPrint(`
import os, pathlib, shutil, stat, subprocess
pathlib.Path("own.sh").write_text("#!/bin/sh\necho started $0\n")
before = stat.S_IMODE(os.stat("own.sh").st_mode)
os.chmod("own.sh", before | stat.S_IXUSR)
print(oct(before), oct(stat.S_IMODE(os.stat("own.sh").st_mode)))
print(subprocess.run(["./own.sh"], capture_output=True, text=True).stdout, end="")
open("/tmp/other.sh", "w").write("#!/bin/sh\necho other\n")
print(subprocess.run("chmod +x other.sh && ./other.sh", shell=True, capture_output=True, text=True, cwd="/tmp").stdout, end="")
shutil.copy("own.sh", "copy.sh")
print(subprocess.run(["./copy.sh"], capture_output=True, text=True).stdout, end="")
os.symlink("/etc/passwd", "outside")
try: os.chmod("outside", 0o777)
except OSError: pass
print(oct(stat.S_IMODE(os.stat("/etc/passwd").st_mode) & 0o022))
`, "0o644 0o744\nstarted ./own.sh\nother\nstarted ./copy.sh\n0o0\n")
	})
}
