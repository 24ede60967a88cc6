package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// plant writes modules that would show themselves wherever it can, and prints where that was.
const plant = `
import os, site, sys, sysconfig, tempfile
body = "import sys\nsys.stderr.write('PLANTED ' + __name__ + '\\n')\nsys.modules['zz_planted'] = sys\nraise SystemExit(77)\n"
names = ["json.py", "pip/__init__.py", "pip/__main__.py", "sitecustomize.py", "usercustomize.py", "sandbox_x.py", "_sandbox_wire.py", "py_compile.py",
         "runpy.py", "sbx_later.py", "sbx_later/__init__.py", "zz.pth", "pyvenv.cfg", "pip.conf", ".pydistutils.cfg"]
paths = sysconfig.get_paths()
places = {"/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/sandbox/work", "/packages", "/etc", "/root", os.getcwd(), os.path.expanduser("~"), tempfile.gettempdir(), sys.prefix,
          site.getusersitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"], os.path.dirname(sys.executable), os.path.expanduser("~/.config/pip"),
          os.path.expanduser("~/.local/lib")}
places |= {p or "." for p in sys.path} | {p for p in (os.environ.get(n) for n in ("TMPDIR", "XDG_CONFIG_HOME")) if p}
import importlib.util
spec = importlib.util.find_spec("sbx_one")
if spec: places |= {os.path.dirname(spec.origin), os.path.dirname(os.path.dirname(spec.origin))}
done = set()
for place in places:
    for name in names:
        try:
            os.makedirs(os.path.dirname(os.path.join(place, name)), exist_ok=True)
            with open(os.path.join(place, name), "w") as f:
                f.write("import os; os._exit(77)\n" if name.endswith(".pth") else "[global]\nindex-url = http://127.0.0.1:9/\n" if name.endswith((".conf", ".cfg")) else body)
            done.add(place)
        except OSError: pass
# Compiled ones and entries that other tools look for.
for place in places:
    try: os.makedirs(os.path.join(place, "__pycache__"), exist_ok=True)
    except OSError: pass
print(*sorted(done))`

// clean prints "right" when nothing that was planted is loaded or can be imported, here or in a Python below.
const clean = `
import subprocess, sys
def look():
    return sorted(m for m in sys.modules if m in ("sandbox_x", "zz_planted", "sitecustomize_planted") or m.startswith("_sandbox_")
                  and not (getattr(sys.modules[m], "__spec__", None) is None))
import json, runpy, py_compile
bad = look()
stdlib = json.__file__.rsplit("/", 2)[0]
bad += [m.__file__ for m in (json, runpy, py_compile) if not m.__file__.startswith(stdlib)]
for name in ("sandbox_x", "sbx_later_planted"):
    try:
        __import__(name)
        bad.append(name)
    except ModuleNotFoundError: pass
out = subprocess.run([sys.executable, "-c", "import json, runpy, sys; print(sorted(m for m in sys.modules if m in ('sandbox_x', 'zz_planted')))"], capture_output=True, text=True)
if (out.stdout, out.stderr, out.returncode) != ("[]\n", "", 0): bad.append(out)
print(bad or "right")`

// What a program writes is found by no later program, by no installer and by no template.
func TestInstallNothingPlanted(t *testing.T) {
	t.Parallel()
	inEachWorldWithPackages(t, func(t *testing.T, c *caddy, x *index.Server) {
		x.AddWheels(index.Wheel{Name: "sbx-one", Version: "1.0"}, twoModules("sbx-later", "1.0", "sbx-below"), twoModules("sbx-below", "1.0"))
		c.mustInstall("sbx-one", "")
		for _, when := range []string{"before an install", "after it"} {
			// More than are parked, since a place may be that of a lane.
			for range 3 {
				a := c.run(plant)
				if a.ExitCode != 0 || !strings.Contains(a.Stdout, "/tmp") {
					t.Fatalf("%s it could plant nothing: %s", when, a.raw)
				}
				for place := range strings.FieldsSeq(a.Stdout) {
					if !strings.HasPrefix(place, "/tmp") && place != "/var/tmp" && place != "/dev/shm" {
						t.Errorf("%s it could write to %s", when, place)
					}
					// A path below /tmp is one of its own scratch, whatever lies there on the host.
					if _, err := os.Lstat(filepath.Join(place, "zz.pth")); err == nil && strings.Contains(place, c.o.home) {
						t.Errorf("%s it has planted something in the host's %s", when, place)
					}
				}
				c.mustPrint(clean, "right\n")
			}
			if when == "before an install" {
				// It takes an installer for pip, another to compile, and new templates.
				c.mustInstall("sbx-later", "")
				c.mustPrint(has("sbx_later 1.0", "sbx_below 1.0", "sbx_later.sub 1.0"), "right\n")
			}
		}
		c.mustPrint(clean, "right\n")
		if strings.Contains(c.log.String(), "PLANTED") {
			t.Error("the log has words of a planted module")
		}
	})
}

// What was installed is data to the installer: no package chooses what is installed next.
func TestInstallPackagesDoNotRunInTheInstaller(t *testing.T) {
	t.Parallel()
	evil := "import sys\nsys.stderr.write('PLANTED\\n')\nraise SystemExit(77)\n"
	x := newIndex(t,
		index.Wheel{Name: "sbx-evil", Version: "1.0", Files: map[string]string{
			"pip/__init__.py": evil, "pip/__main__.py": evil, "setuptools/__init__.py": evil, "packaging/__init__.py": evil, "certifi/__init__.py": evil,
			"_distutils_hack/__init__.py": evil, "py_compile_planted.py": evil, "zz-evil.pth": "import pip\n", "wheel/__init__.py": evil, "sbx_evil.py": evil,
			"broken.py": "this is (no Python\n", "deep.py": strings.Repeat("(", 10_000), "nul.py": "\x00", "bytes.py": "\xff\xfe", "huge.py": "x = " + strings.Repeat("-", 100_000) + "1\n",
		}},
		index.Wheel{Name: "sbx-one", Version: "1.0", Requires: []string{"sbx-two"}}, index.Wheel{Name: "sbx-two", Version: "1.0"})
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	c.mustInstall("sbx-evil", "")
	c.mustPrint("print('right')", "right\n")
	c.mustInstall("sbx-one", "")
	c.mustPrint(has("sbx_one 1.0", "sbx_two 1.0"), "right\n")
	if a := c.run("import sbx_evil"); a.ExitCode != 77 || !strings.Contains(a.Stderr, "PLANTED") {
		t.Errorf("it is not there: %s", a.raw)
	}
	if strings.Contains(c.log.String(), "PLANTED") {
		t.Error("the log has words of the package")
	}
	c.restart()
	c.mustPrint(has("sbx_one 1.0"), "right\n")
}
