package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// pythonWithPip is an interpreter that every user may run and that brings pip, or the wheel of it that ensurepip has: that
// of the system, or a virtual environment of it.
func pythonWithPip(t testing.TB) string {
	t.Helper()
	python := systemPython(t)
	if exec.Command(python, "-I", "-c", "import pip").Run() == nil {
		return python
	}
	dir := filepath.Join(interpreterDir(t), "venv")
	if out, err := exec.Command(python, "-m", "venv", dir).CombinedOutput(); err != nil {
		need(t, false, fmt.Sprintf("%s has no pip and makes no virtual environment that has (%v): %s", python, err, out))
	}
	return filepath.Join(dir, "bin", "python")
}

// inEachWorldWithPackages is inEachWorld for a server that installs, from an index that is empty yet.
func inEachWorldWithPackages(t *testing.T, test func(t *testing.T, c *caddy, x *index.Server)) {
	python := pythonWithPip(t)
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			need(t, !w.root || os.Geteuid() == 0, needsRoot)
			x := newIndex(t)
			o := caddyOptions{directive: installingBy(python, x.URL(), oftenEnough), noNamespaces: !w.namespaces}
			if !w.root {
				o.credential = ordinaryUser()
			}
			test(t, startCaddy(t, o), x)
		})
	}
}

// In every world an install works, and what it leaves can be read by programs and written by none.
func TestInstallWorlds(t *testing.T) {
	t.Parallel()
	inEachWorldWithPackages(t, func(t *testing.T, c *caddy, x *index.Server) { tryInstalls(t, c, x) })
}

func tryInstalls(t *testing.T, c *caddy, x *index.Server) {
	t.Helper()
	bad := index.Wheel{Name: "sbx-hash", Version: "1.0"}.File()
	bad.HashWrong = true
	x.Add(index.Project{Name: "sbx-hash", Files: []index.File{bad}})
	moved := index.Wheel{Name: "sbx-moved", Version: "1.0"}.File()
	moved.RedirectTo, moved.NoMetadata = "http://elsewhere.invalid/sbx_moved-1.0-py3-none-any.whl", true
	x.Add(index.Project{Name: "sbx-moved", Files: []index.File{moved}})
	whole := index.Wheel{Name: "sbx-whole", Version: "1.0"}.File()
	whole.NoMetadata = true // pip must fetch it to know what it needs
	x.Add(index.Project{Name: "sbx-whole", Files: []index.File{whole}})
	x.AddWheels(twoModules("sbx-top", "1.0", "sbx-below>=1"), twoModules("sbx-below", "1.0"), twoModules("sbx-top", "2.0"), index.Wheel{Name: "sbx-clash", Version: "1.0", Requires: []string{"sbx-below<1"}})

	c.mustInstall("sbx-top", "1.0")
	c.mustPrint(has("sbx_top 1.0", "sbx_top.sub 1.0", "sbx_below 1.0"), "right\n")
	// Warm means compiled, too.
	c.mustPrint("import os, sbx_top.sub as s; print(os.path.exists(s.__cached__))", "True\n")
	c.mustPrint("import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'import sbx_top.sub as s; print(s.__version__)'], capture_output=True, text=True))",
		c.run("import subprocess, sys; print(subprocess.CompletedProcess([sys.executable, '-c', 'import sbx_top.sub as s; print(s.__version__)'], 0, '1.0\\n', ''))").Stdout)
	// Where a program's id owns the files, a change of their mode does nothing, without an error.
	c.mustPrint(`import os, sbx_top
site = os.path.dirname(os.path.dirname(sbx_top.__file__))
listed = os.listdir(site)
for attempt in (lambda: open(site + "/x.py", "w").write("x"), lambda: os.remove(sbx_top.__file__), lambda: print("it can write to it") if open(sbx_top.__file__, "a") else None, lambda: os.mkdir(site + "/x"),
                lambda: os.rename(site + "/sbx_top", site + "/x"), lambda: os.chmod(sbx_top.__file__, 0o777), lambda: os.symlink("/", site + "/x"), lambda: os.chmod(site, 0o777)):
    modes = [os.stat(f).st_mode for f in (site, sbx_top.__file__)]
    try:
        attempt()
        if len(listed) != len(os.listdir(site)) or modes != [os.stat(f).st_mode for f in (site, sbx_top.__file__)]: print("it can change what is installed")
    except OSError: pass
print("right")`, "right\n")
	c.mustInstall("sbx-whole", "")
	for name, status := range map[string]string{"sbx-hash": "failed", "sbx-moved": "failed", "sbx-clash": "conflict", "sbx-missing": "not_found"} {
		if a := c.install(name, ""); a.Status != status || name == "sbx-moved" && !strings.Contains(a.Message, "elsewhere.invalid") {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	c.mustInstall("sbx-top", "2.0")
	c.mustPrint(has("sbx_top 2.0", "sbx_top.sub 2.0", "sbx_below 1.0", "sbx_whole 1.0"), "right\n")
	c.restart()
	c.mustPrint(has("sbx_top 2.0", "sbx_top.sub 2.0", "sbx_below 1.0", "sbx_whole 1.0"), "right\n")
	c.noneIsLeft()
	if left := entries(t, c.tmp()); left > 1 { // without namespaces there is the directory of all scratch
		t.Errorf("%d files are left in the temporary directory", left)
	}
}

// As root in a container, whose home nobody else may enter, and without namespaces: packages need a place that was chosen.
func TestInstallClosedHome(t *testing.T) {
	t.Parallel()
	need(t, os.Geteuid() == 0, needsRoot)
	python := pythonWithPip(t)
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	home := filepath.Join(sharedDir(t), "home")
	mkdirFor(t, home, 0o700, nil)
	c := startCaddy(t, caddyOptions{directive: installingBy(python, x.URL()), noNamespaces: true, home: home})
	c.mustPrint("print('right')", "right\n")
	if a, err := c.tryInstall(t.Context(), "sbx-one", ""); err != nil || a.code != 404 {
		t.Errorf("%d %s %v", a.code, a.raw, err)
	}
	if !strings.Contains(c.log.String(), "packages are off: programs cannot read") {
		t.Error("nobody is told that packages are off")
	}
	c.reload(installingBy(python, x.URL(), "data_dir "+filepath.Join(sharedDir(t), "packages")), "")
	c.mustInstall("sbx-one", "")
	c.mustPrint(has("sbx_one 1.0"), "right\n")

	chosen := prepare(t, caddyOptions{directive: installingBy(python, x.URL(), "data_dir "+filepath.Join(home, "packages")), noNamespaces: true})
	if out, code := chosen.outcome("run", "--config", chosen.configFile, "--adapter", "caddyfile"); code == 0 || !strings.Contains(out, "set packages data_dir to a directory that everybody may read") {
		t.Errorf("with a data_dir that is closed: %d %s", code, tail(out, 1000))
	}
}

// A server whose files nobody else may read still shows programs, which run under other ids, what is installed.
func TestInstallWithUmask(t *testing.T) {
	t.Parallel()
	python := pythonWithPip(t)
	for _, w := range worlds {
		if !w.root {
			continue // programs have the id of Caddy then
		}
		t.Run(w.name, func(t *testing.T) {
			need(t, os.Geteuid() == 0, needsRoot)
			t.Parallel()
			x := newIndex(t, twoModules("sbx-top", "1.0", "sbx-below"), twoModules("sbx-below", "1.0"))
			c := prepare(t, caddyOptions{directive: installingBy(python, x.URL(), oftenEnough, "data_dir "+filepath.Join(sharedDir(t), "packages")),
				noNamespaces: !w.namespaces})
			t.Cleanup(func() { c.stop() })
			c.startWithUmask("0077")
			c.mustInstall("sbx-top", "")
			all := has("sbx_top 1.0", "sbx_top.sub 1.0", "sbx_below 1.0")
			c.mustPrint(all, "right\n")
			c.mustPrint("import os, sbx_top.sub as s; print(os.path.exists(s.__cached__))", "True\n")
			c.stop()
			c.startWithUmask("0077")
			c.mustPrint(all, "right\n")
			c.noneIsLeft()
		})
	}
}

// startWithUmask starts a prepared Caddy.
func (c *caddy) startWithUmask(umask string) {
	c.Helper()
	like := c.command(context.Background(), "run", "--config", c.configFile, "--adapter", "caddyfile")
	path := like.Path
	if path == "/proc/self/exe" { // which would be the shell
		var err error
		if path, err = os.Executable(); err != nil {
			c.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", "umask " + umask + `; exec "$0" "$@"`, path}, like.Args[1:]...)...)
	cmd.Dir, cmd.Env = like.Dir, like.Env
	c.launch(cmd)
}
