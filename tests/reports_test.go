package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// reportCase is a program of the kind that models write, or the cause of a public report about a product of this kind.
type reportCase struct {
	runCase
	Needs []string `json:"needs"` // packages
}

// reportPackages is where packages lie that cases need: whoever runs the test's interpreter may read them. It is "" when the
// interpreter is not of the version that they were installed for.
func reportPackages(t *testing.T, python string) string {
	t.Helper()
	if clientPython == "" {
		return ""
	}
	dir := filepath.Join(filepath.Dir(filepath.Dir(clientPython)), "reports")
	check := exec.Command(python, "-c", "import numpy, pandas, sklearn, duckdb")
	check.Env = append(os.Environ(), "PYTHONPATH="+dir)
	if err := check.Run(); err != nil {
		return ""
	}
	return dir
}

// Ordinary programs run in every world as they do under a plain Python.
func TestReportedPrograms(t *testing.T) {
	t.Parallel()
	var cases []reportCase
	for _, name := range []string{"reports", "reports-more"} {
		b, err := os.ReadFile("cases/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var some []reportCase
		if err := json.Unmarshal(b, &some); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, some...)
	}
	packages := reportPackages(t, systemPython(t))
	directive := "limits {\n memory 1GiB\n execute_timeout 120s 120s\n }" // what counts is the answer, however busy the machine is
	if want(t, packages != "", "the packages of tests/requirements-reports.txt are not installed for "+systemPython(t)+": cases that need one are left out") {
		directive += "\npython_path " + packages
	}
	inEachWorld(t, directive, func(t *testing.T, c *caddy) {
		// In a group, so that the server outlives the cases, which run at the same time.
		t.Run("cases", func(t *testing.T) {
			for _, rc := range cases {
				if len(rc.Needs) > 0 && packages == "" {
					continue
				}
				t.Run(rc.ID, func(t *testing.T) {
					t.Parallel()
					delete(rc.Request, "timeout")
					tryCase(t, c, rc.runCase)
				})
			}
		})
		c.expectNoScratch()
	})
}

// What the table of the world default says holds without namespaces, too.
func TestWorldWithoutNamespaces(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "python " + systemPython(t), credential: ordinaryUser(), noNamespaces: true})
	tryWorld(t, c)
}

// Where a lane may not trace what it has forked, /tmp stays closed, $TMPDIR names the scratch directory, and the rest works.
func TestWorldWithoutTracing(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "python " + systemPython(t), credential: ordinaryUser(), noNamespaces: true, noTracing: true})
	c.mustPrint(`import multiprocessing, os, subprocess, tempfile
try: open("/tmp/x", "w")
except PermissionError as e: print(e.filename)
d = os.environ["TMPDIR"]; print(d == os.environ["HOME"] == os.getcwd() == tempfile.gettempdir())
open(d + "/x", "w").write("1"); print(sorted(os.listdir(d)), subprocess.check_output(["cat", d + "/x"]))
with multiprocessing.get_context("fork").Pool(2) as p: print(p.map(abs, [-1, 2]))
some = [subprocess.Popen(["sleep", "30"], start_new_session=True) for _ in range(20)]   # as many sessions as it likes
for p in some: p.kill(); p.wait()`, "/tmp/x\nTrue\n['main.py', 'x'] b'1'\n[1, 2]\n")
	c.expectNoScratch()
}

// A run's /tmp is its own: it finds nothing of the host's there, nothing of another run's, and leaves nothing behind.
func TestTemporaryDirectoryIsItsOwn(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		mark := filepath.Base(sharedDir(t)) // a name that the host's own /tmp has
		c.mustPrint("import os; print(os.path.exists('/tmp/"+mark+"'), os.listdir('/tmp'))", "False ['main.py']\n")
		c.mustPrint(`import os, subprocess
for d in ("/tmp", "/var/tmp", "/dev/shm"):
    os.mkdir(d + "/zz-`+mark+`" + d[1]); open(d + "/zz-`+mark+`" + d[-1] + "f", "w").write("x")
print(subprocess.run("echo > /tmp/zz-shell; ls /tmp | wc -l", shell=True, capture_output=True, text=True).stdout)`, "7\n\n")
		c.mustPrint("import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'))", "['main.py'] ['main.py']\n")
		for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
			found, err := filepath.Glob(dir + "/zz-*")
			if err != nil || len(found) > 0 {
				t.Errorf("%v of a run lie in the host's %s (%v)", found, dir, err)
			}
		}
		c.expectNoScratch()
	})
}

// Files in /tmp count as scratch.
func TestTemporaryDirectoryIsBounded(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "limits {\n scratch 4MiB\n }", func(t *testing.T, c *caddy) {
		a := c.run(`
import errno
try:
    with open("/tmp/one", "wb") as f:
        for _ in range(8): f.write(bytes(1 << 20)); f.flush()
    print("written")
except OSError as e: print(errno.errorcode[e.errno])`)
		if a.Stdout != "EFBIG\n" && a.Stdout != "ENOSPC\n" {
			t.Errorf("%s", a.raw)
		}
		if a := c.run("import time\nfor i in range(40): open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 20)); time.sleep(.05)\nprint('written')"); strings.Contains(a.Stdout, "written") {
			t.Errorf("%s", a.raw)
		}
	})
}
