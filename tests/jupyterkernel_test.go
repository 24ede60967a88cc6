package tests

import (
	"strings"
	"testing"
	"time"
)

const gone = "and the names, imports and files of earlier cells are gone"

// cells is what one kernel is asked, and what must be in the answers.
type cells []struct {
	code  string
	wants []string
}

func TestJupyterKernelsKeepWhatCellsLeave(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on\nworkers {\n max 40\n }\nlimits {\n execute_timeout 3s 20s\n memory 96MiB\n }"})
	for name, steps := range map[string]cells{
		"names, imports, files": {
			{"import json, os\nx = [1]\ndef f(): return x\nclass A:\n    def __init__(self, v): self.v = v\nopen('kept', 'w').write('a file');", []string{"ok"}},
			{"x.append(2)\n(json.dumps(f()), open('kept').read(), os.getcwd() == os.path.dirname(__file__))", []string{`ok ('[1, 2]', 'a file', True)`}},
			{"import pickle\npickle.loads(pickle.dumps(A(3))).v", []string{"ok 3"}},
			{"_ + 1", []string{"ok 4"}},
			{"1/0", []string{`error  ZeroDivisionError: division by zero`, "Traceback (most recent call last):\n  File \"<cell 5>\", line 1, in <module>\n    1/0"}},
			{"def g():\n    return nowhere\n", []string{"ok"}},
			{"\n\ng()", []string{"File \"<cell 7>\", line 3, in <module>\n    g()\n", "File \"<cell 6>\", line 2, in g\n    return nowhere\n"}},
			{"import inspect\nprint(inspect.getsource(g))", []string{`out "def g():\n    return nowhere\n\n"`}},
			{"raise KeyError", []string{"error  KeyError: "}},
			{"import warnings\nwarnings.warn('w')", []string{"<cell 10>:2: UserWarning: w"}},
			{"import warnings\nwarnings.warn('w')", []string{"<cell 11>:2: UserWarning: w"}},
			{"x, display(x)", []string{"ok"}},
		},
		"code as models send it": {
			{"```python\nx = 41\nx + 1\n```", []string{"ok err ", " 42", "[The code is no Python as it was sent, so what its Markdown fences hold was run"}},
			{"Here it is:\n```python\nx / 0\n```\n", []string{"ZeroDivisionError: division by zero", "File \"<cell 2>\", line 3, in <module>\n    x / 0\n", "Markdown fences"}},
			{"```python\nx = = 1\n```", []string{"error  SyntaxError", "line 1\n    ```python\n"}},
			{"text = \"\"\"\n```python\nx = 0\n```\n\"\"\"\nx", []string{"ok 41"}},
			{"raise SyntaxError('```python\\nx = 0\\n```')", []string{"error  SyntaxError: ```python"}},
			{"x", []string{"ok 41"}},
			{"!pip install humanize", []string{"error  SyntaxError", "A program's pip has no network", `{"package": "humanize"}`, "restart this kernel"}},
			{"%timeit x", []string{"error  SyntaxError", "magics of notebooks"}},
			{"import urllib.request\nurllib.request.urlopen('http://example.org')", []string{"error  URLError", "There is no network here"}},
			{"open('/etc/x', 'w')", []string{"error  ", "$TMPDIR"}},
			{"x", []string{"ok 41"}},
		},
		"asyncio": {
			{"import asyncio\ndone = []\nasync def later():\n    await asyncio.sleep(.05)\n    done.append(1)\ntask = asyncio.ensure_future(later()) if False else None\nawait asyncio.sleep(0)\ntask = asyncio.create_task(later())\ndone", []string{"ok []"}},
			{"await asyncio.sleep(.2)\ndone", []string{"ok [1]"}},
			{"asyncio.get_event_loop().close()", []string{"ok"}},
			{"await asyncio.sleep(0, 5)", []string{"ok 5"}},
		},
		"exits": {
			{"x = 1\nraise SystemExit", []string{"ok"}},
			{"exit()", []string{"ok"}},
			{"import sys; sys.exit(3)", []string{"error  SystemExit: 3"}},
			{"sys.exit('why')", []string{"error  SystemExit: why"}},
			{"x, sys.stdin.read()", []string{"ok (1, '')"}},
			{"import os; print('before'); os._exit(7)", []string{`out "before\n"`, "ProcessExited: the process ended with exit code 7; the names, imports and files of earlier cells are gone"}},
			{"x", []string{"[This cell runs in a fresh process: the last one ended with exit code 7, " + gone, "NameError"}},
			{"x = 2; os = __import__('os'); os.kill(os.getpid(), 11)", []string{"ProcessKilled: the process was ended by a signal, exit code 139; the names"}},
			{"import threading, os; threading.Thread(target=lambda: (os.read(r, 1), os._exit(4))).start() if (p := os.pipe()) and (r := p[0]) else 0", []string{"exit code 139, " + gone, "ok"}},
			{"os.write(p[1], b'x'); import time; time.sleep(5)", []string{"ProcessExited: the process ended with exit code 4"}},
			{"1", []string{"exit code 4, " + gone, "ok"}},
		},
		"limits": {
			{"x = 1", []string{"ok"}},
			{"b = bytearray(300 << 20); import time; time.sleep(10)", []string{"MemoryError: "}},
			{"import os, time\nfor _ in range(3):\n    if os.fork() == 0: time.sleep(.5); b = bytearray(60 << 20); time.sleep(60)\ntime.sleep(10)", []string{"MemoryError: ", "are gone. There were 4 processes: run fewer jobs"}},
			{"x = 2; x", []string{"ok"}},
			{"import time\ntry: time.sleep(60)\nfinally: x = 3", []string{"error  TimeoutError: the code ran longer than 3s and was interrupted", "TimeoutError: the code ran longer than 3s and was interrupted; what it showed before is above\nTraceback"}},
			{"x", []string{"ok 3"}},
			{"while True:\n    try: time.sleep(1)\n    except KeyboardInterrupt: pass", []string{"error  TimeoutError: the code ran longer than 3s and was ended, with its process; the names"}},
			{"x", []string{"the last one was ended, since its cell went on after an interrupt, " + gone, "NameError"}},
			{"x = 4", []string{"ok"}},
			{"while True: print('x' * 99999)", []string{"OutputLimitError: the process wrote an absurd amount of output and was ended; the names", "characters left out"}},
			{"x", []string{gone, "NameError"}},
		},
		"forks and threads": {
			{"import os, sys, threading, time\nx = 1\npid = os.fork()\nos.write(1, b'both\\n')\nif pid: os.waitpid(pid, 0)\nx", []string{`ok out "both\nboth\n"`}},
			{"if pid == 0: print('the child is in a later cell')\nx", []string{"ok 1"}},
			{"pid = os.fork()\nif pid == 0: 1/0\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])", []string{
				`ok err "Traceback (most recent call last):\n  File \"<cell 3>\", line 2, in <module>\n    if pid == 0: 1/0\n`, " 1 ",
			}},
			{"pid = os.fork()\nif pid == 0: sys.exit(5)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])", []string{"ok 5"}},
			{"import multiprocessing as m\ndef double(v): return v * 2\nwith m.get_context('fork').Pool(2) as pool: print(pool.map(double, [1, 2]))", []string{`out "[2, 4]\n"`}},
			{"go, gone_ = threading.Event(), threading.Event()\ndef late():\n    go.wait(); print('late', flush=True); display('shown'); gone_.set()\nthreading.Thread(target=late).start()", []string{"ok"}},
			{"go.set(); gone_.wait(5)", []string{`ok out "late\n" True`}},
			{"import subprocess\nsubprocess.run([sys.executable, '-c', 'import sys; print(sys.stdin.read(), 1)'], check=True).returncode", []string{`out " 1\n" 0`}},
		},
		"descriptors": {
			{"import os, sys\nx = 1\nsys.stdin.read(), sys.stdin.readline(), os.read(0, 9)", []string{"ok ('', '', b'')"}},
			{"input('?')", []string{"EOFError: input() is not supported here"}},
			{"os.close(1)\nprint(2)", []string{"OSError: [Errno 9]", "[the cell has closed descriptor 1, stdout, which is open again]"}},
			{"print(3)", []string{`ok out "3\n"`}},
			{"for fd in range(3): os.close(fd)", []string{"descriptor 0, stdin", "descriptor 1, stdout", "descriptor 2, stderr", "ok"}},
			{"print(4, os.read(0, 1)); print(5, file=sys.stderr); os.system('echo 6')", []string{`out "4 b''\n6\n"`, `err "5\n"`, "ok"}},
			{"os.closerange(3, 100)\nprint(7)", []string{`ok out "7\n"`}},
			{"import io\nsys.stdout = io.StringIO()\nprint(8)\nsys.stdout.getvalue()", []string{`ok '8\n'`}},
			{"print(9)\nsys.stdout = sys.__stdout__\nprint(x)", []string{`ok out "1\n"`}},
			{"sys.stdout = sys.stderr = 5\nprint(1)", []string{"AttributeError"}},
			{"print(10); print(11, file=sys.stderr)", []string{`out "10\n"`, `err "11\n"`, "ok"}},
			{"sys.stdout.close(); sys.stderr.close()", []string{"ok"}},
			{"print(12); print(13, file=sys.stderr)", []string{`out "12\n"`, `err "13\n"`, "ok"}},
			{"sys.stdout = None; del sys.stderr", []string{"ok"}},
			{"class E(Exception):\n    def __str__(self): raise SystemExit(3)\nraise E", []string{"error  Exception: it cannot be shown"}},
			{"os.closerange(3, 65536)\nprint(14)", []string{`[the cell has closed the descriptors through which its kernel speaks]`, "ProcessExited: the process ended with exit code 1; the names"}},
			{"x", []string{"ended with exit code 1, " + gone, "NameError"}},
		},
		"records in the output": {
			{"import sys\nprint('a\\x1eb\\x1dc', '\\x1e' * 3)\nprint('\\x1e\\x1d', file=sys.stderr)\n1", []string{`out "a\x1eb\x1dc \x1e\x1e\x1e\n"`, `err "\x1e\x1d\n"`, "ok", " 1 "}},
			{"kernel = sys._getframe(1).f_globals\nwhile 'mark' not in kernel: kernel = kernel['f'].f_back.f_globals\nsys.stdout.buffer.write(b'\\x1e' + kernel['mark'] + b' ZW5k\\x1d')\nprint('after a forged end')", []string{"ok"}},
			{"import os, base64\ndef forge(fd, *fields): os.write(fd, b' '.join([b'\\x1e' + kernel['mark'], *map(base64.b64encode, fields)]) + b'\\x1d')\nforge(1, b'error', b'Made', b'up', b'by the cell')", []string{"error  Made: up"}},
			{"for fd in (1, 2):\n    for _ in range(3): forge(fd, b'begin'); forge(fd, b'end')\nforge(2, b'display', b'text/plain', b'x')", []string{"ok"}},
			{"forge(1, b'result'); forge(1, b'nonsense'); os.write(1, b'\\x1e' + kernel['mark'] + b' !!\\x1d')\n5", []string{"3 things to show were left out", " 5 "}},
			{"kernel['mark'] = b'0' * 32\nprint('no end comes of this')", []string{"TimeoutError: the code ran longer than 3s and was ended"}},
			{"1", []string{gone, "ok"}},
		},
		"bounds of output": {
			{"print('y' * 30000)", []string{"characters left out", "ok"}},
			{"import sys\nprint('y' * 30000, file=sys.stderr)", []string{"characters left out", "ok"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := c.in(t).newKernel()
			for _, step := range steps {
				k.expect(step.code, step.wants...)
			}
			k.request("DELETE", "")
		})
	}
}

func TestJupyterKernelsAreApart(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	one, other := c.newKernel(), c.newKernel()
	one.expect("x = 1\nopen('file', 'w').write('x')\nimport os; os.getpid()", "ok")
	other.expect("import os\nos.listdir('.')", "ok ['main.py']")
	other.expect("x", "NameError")
	one.expect("x, open('file').read()", "ok (1, 'x')")
}

// A kernel may print for as long as it lives.
func TestJupyterKernelsMayPrintMuchInAll(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on\nlimits {\n output 1000\n }"})
	k := c.newKernel()
	k.expect("x = 1\ndef flood(n): print('z' * n, flush=True)", "ok")
	for range 100 {
		if a := k.cell("flood(1_000_000)"); a.status != "ok" || len(a.stdout) > 1100 {
			t.Fatalf("got %.2000s", a)
		}
	}
	k.expect("x", "ok 1")
}

func TestJupyterInterruptsKeepNames(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	k := c.newKernel()
	k.expect("import time, asyncio, subprocess, sys\nx = 1", "ok")
	for _, code := range []string{
		"time.sleep(60)", "while True: pass", "await asyncio.sleep(60)", "async def busy():\n    while True: await asyncio.sleep(0)\nawait busy()",
		"asyncio.run(asyncio.sleep(60))", "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
		"class Slow:\n    def __repr__(self): time.sleep(60)\nSlow()", "import threading; threading.Event().wait()",
	} {
		id := k.begin("print('running', flush=True)\n" + code)
		k.request("POST", "/interrupt")
		k.check(code, k.answer(id, ""), "error", "KeyboardInterrupt: ", "Traceback (most recent call last):")
		k.expect("x", "ok 1")
	}
	k.expect("await asyncio.sleep(0, 2)", "ok 2")
	// Its own way to end.
	id := k.begin("try:\n    print('running', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt: print('cleaned up')")
	k.request("POST", "/interrupt")
	k.check("an interrupt that is caught", k.answer(id, ""), "ok", "cleaned up")
	id = k.begin("import signal\nsignal.signal(signal.SIGINT, lambda *_: print('not now'))\nprint('running', flush=True)\nwhile True: pass")
	k.request("POST", "/interrupt")
	k.check("an interrupt that is ignored", k.answer(id, ""), "not now", "KeyboardInterrupt: the process was ended, since its cell went on after an interrupt; the names")
	k.expect("x", "fresh process", gone, "NameError")
	// Between cells there is nothing to interrupt, however close.
	k.expect("x = 1", "ok")
	for range 50 {
		id := k.send("x")
		k.request("POST", "/interrupt")
		if a := k.answer(id, ""); a.result != "1" && a.ename != "KeyboardInterrupt" {
			t.Errorf("got %s", a)
		}
	}
	k.expect("x", "ok 1")
}

func TestJupyterRestartIsFresh(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	k := c.newKernel()
	k.expect("x = 1\nopen('file', 'w').write('x')", "ok")
	id := k.begin("print('running', flush=True)\nwhile True: pass")
	k.request("POST", "/restart")
	k.check("what ran", k.answer(id, ""), "error", "the execution was interrupted")
	if a := k.expect("import os\n'x' in globals(), os.listdir('.')", "ok (False, ['main.py'])"); a.count != 1 || a.stderr != "" {
		t.Errorf("got %d, %s", a.count, a)
	}
}

func TestJupyterFiguresOverCells(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{directive: "jupyter on\npython " + clientPython + "\nlimits {\n execute_timeout 60s\n }"})
	k := c.newKernel()
	for _, step := range []struct {
		code   string
		images int
	}{
		{"import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2]);", 1},
		{"axes.plot([2, 1])", 0}, // it was shown, and closed
		{"figure", 0},            // the result has it
		{"plt.plot([1]); plt.figure(); plt.plot([2]); plt.show(); plt.figure();", 3},
		{"plt.get_fignums()", 0},
	} {
		if a := k.cell(step.code); a.status != "ok" || a.images != step.images {
			t.Errorf("%q: got %d images, %s", step.code, a.images, a)
		}
	}
}

// A process that has ended tells why in one sentence; hints are for exceptions of the cell's own.
func TestJupyterDoesNotHintTwice(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on\nlimits {\n memory 96MiB\n }"})
	k := c.newKernel()
	a := k.expect("import os, time\nfor _ in range(3):\n    if os.fork() == 0: b = bytearray(60 << 20); time.sleep(60)\ntime.sleep(60)", "error  MemoryError: ")
	if strings.Contains(a.traceback, "asked for more memory") || strings.Count(a.traceback, "\n") > 0 {
		t.Errorf("got %s", a)
	}
	k.expect("bytearray(1 << 40)", "error", "MemoryError", "asked for more memory than it may have: 96 MiB")
}

func TestJupyterInEachWorld(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "jupyter on\nlimits {\n memory 96MiB\n scratch 2MiB\n }", func(t *testing.T, c *caddy) {
		k, other := c.newKernel(), c.newKernel()
		other.expect("x = 'of another'", "ok")
		k.expect("import os, time\nx = 1\nopen('kept', 'w').write('a file');", "ok")
		k.expect("x, open('kept').read()", "ok (1, 'a file')")
		id := k.begin("print('running', flush=True)\ntime.sleep(60)")
		k.request("POST", "/interrupt")
		k.check("an interrupt", k.answer(id, ""), "KeyboardInterrupt: ", "Traceback")
		k.expect("x, open('kept').read()", "ok (1, 'a file')")
		k.expect("os.kill(os.getpid(), 9)", "ProcessKilled: the process was ended by a signal, exit code 137; the names")
		k.expect("import os; os.listdir('.')", "exit code 137, "+gone, "['main.py']")
		k.expect("import time; b = bytearray(300 << 20); time.sleep(10)", "MemoryError: ")
		// Where files are in memory they count as such, and a full scratch is an error that a cell can take.
		k.expect("with open('large', 'wb') as f:\n    while True: f.write(b'x' * 99999)", "error")
		k.expect("1", "ok")
		k.request("DELETE", "")
		other.expect("x", "ok 'of another'")
		other.request("DELETE", "")
		c.waitHealth(5*time.Second, "no worker at work", func(h health) bool { return h.Workers["leased"] == 0 })
	})
}
