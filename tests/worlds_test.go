package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// systemPython is an interpreter that every user may run.
func systemPython(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3"} {
		if exec.Command(path, "-c", "import sys; sys.exit(sys.version_info < (3, 10))").Run() == nil {
			return path
		}
	}
	need(t, false, "no python3 of version 3.10 or later under /usr: install one to test with an interpreter that every user may run")
	return ""
}

// venv makes a virtual environment in dir with one module of its own, as the given user.
func venv(t testing.TB, dir string, who *syscall.Credential) string {
	t.Helper()
	create := exec.Command(systemPython(t), "-m", "venv", "--without-pip", dir)
	if who != nil {
		create.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	create.Dir = "/"
	if out, err := create.CombinedOutput(); err != nil {
		need(t, false, fmt.Sprintf("python3 -m venv does not work here (%v): %s", err, out))
	}
	site, err := filepath.Glob(filepath.Join(dir, "lib", "python3*", "site-packages"))
	if err != nil || len(site) != 1 {
		t.Fatal(site, err)
	}
	module := filepath.Join(site[0], "only_in_this_venv.py")
	if err := os.WriteFile(module, []byte("WORD = 'from the venv'\n"), 0o644); err != nil { // read by another user
		t.Fatal(err)
	}
	return filepath.Join(dir, "bin", "python")
}

// interpreterDir is where the tests put interpreters. Temporary directories will not do: user code has its own in their
// place.
func interpreterDir(t testing.TB) string {
	t.Helper()
	under := []string{"/home", "/opt", "/srv"}
	if os.Geteuid() != 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			need(t, false, "there is no home directory to put an interpreter in: "+err.Error())
		}
		under = []string{home}
	}
	for _, parent := range under {
		dir, err := os.MkdirTemp(parent, "sandbox-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	need(t, false, fmt.Sprintf("none of %v can be written to, to put an interpreter there", under))
	return ""
}

var usersTaken atomic.Uint32

// ordinaryUser is, when root runs the tests, a user that owns nothing here and that no other caller gets, since the kernel counts the
// processes of a user together. Otherwise it is whoever runs them.
func ordinaryUser() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	id := 30000 + usersTaken.Add(1)
	return &syscall.Credential{Uid: id, Gid: id}
}

// tryWorld checks that a sandbox works where it was started: it runs code, keeps what a program may have and nothing else.
func tryWorld(t *testing.T, c *caddy) {
	t.Helper()
	c.mustPrint("print('Hello')", "Hello\n")
	c.mustPrint("open('/tmp/x', 'w').write('1'); import os; print('x' in os.listdir('/tmp'))", "True\n")
	c.mustPrint("import os; print('x' in os.listdir('/tmp'))", "False\n")
	c.mustPrint("import os; print(os.geteuid() != 0 and os.getuid() != 0)", "True\n")
	c.mustPrint("import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'print(6*7)'], capture_output=True, text=True).stdout)", "42\n\n")
	c.mustPrint("import ssl, sqlite3, ctypes, zoneinfo, multiprocessing; print('imported')", "imported\n")
	c.mustPrint(`import socket
try:
    socket.create_connection(('`+strings.Replace(c.addr, ":", "', ", 1)+`), 1)
    print('connected')
except OSError:
    print('no network')`, "no network\n")
	c.mustPrint("import os; print([k for k in os.environ if 'XDG' in k or 'CADDY' in k])", "[]\n")
	if a := c.run("import time; time.sleep(0.1); raise ValueError('x')"); a.ExitCode != 1 || !strings.Contains(a.Stderr, "ValueError: x") {
		t.Errorf("%+v", a)
	}
}

func TestWorldDefault(t *testing.T) {
	t.Parallel()
	tryWorld(t, startCaddy(t, caddyOptions{}))
}

func TestWorldSystemPython(t *testing.T) {
	t.Parallel()
	tryWorld(t, startCaddy(t, caddyOptions{directive: "python " + systemPython(t)}))
}

func TestWorldOrdinaryUser(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "python " + systemPython(t), credential: ordinaryUser()})
	tryWorld(t, c)
	c.mustPrint("import os, pty; m, s = pty.openpty(); os.write(s, b'x\\n'); print(os.read(m, 9), os.ttyname(s))", "b'x\\r\\n' /dev/pts/0\n")
}

func TestWorldVenv(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "python " + venv(t, filepath.Join(interpreterDir(t), "venv"), nil)})
	tryWorld(t, c)
	c.mustPrint("import only_in_this_venv as v; print(v.WORD)", "from the venv\n")
}

// pyenv, uv, conda and most virtual environments live under a home that nobody else may enter.
func TestWorldClosedHome(t *testing.T) {
	t.Parallel()
	t.Run("of the user who runs Caddy", func(t *testing.T) {
		who := ordinaryUser()
		home := filepath.Join(interpreterDir(t), "home")
		mkdirFor(t, home, 0o700, who)
		python := venv(t, filepath.Join(home, "venv"), who)
		c := startCaddy(t, caddyOptions{directive: "python " + python, credential: who, home: home})
		tryWorld(t, c)
		c.mustPrint("import only_in_this_venv as v; print(v.WORD)", "from the venv\n")
	})
	t.Run("Caddy is root", func(t *testing.T) {
		need(t, os.Geteuid() == 0, needsRoot)
		who := ordinaryUser()
		home := filepath.Join(interpreterDir(t), "home")
		mkdirFor(t, home, 0o700, who)
		python := venv(t, filepath.Join(home, "venv"), who)
		c := startCaddy(t, caddyOptions{directive: "python " + python})
		tryWorld(t, c)
		c.mustPrint("import only_in_this_venv as v; print(v.WORD)", "from the venv\n")
	})
}
