package pool

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// describedSystem is a system with the given directories and links.
func describedSystem(euid int, dirs []string, links map[string]string) system {
	return system{
		euid:  euid,
		isDir: func(path string) bool { return slices.Contains(dirs, path) },
		readlink: func(path string) (string, bool) {
			to, ok := links[path]
			return to, ok
		},
		resolve: filepath.Clean,
	}
}

func TestPlanBindsThePythonAndNothingOfTheHomeAroundIt(t *testing.T) {
	t.Parallel()
	cfg, err := Config{}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{"/usr", "/sys", "/home/ann/py", "/home/ann/py/bin", "/home/ann/py/lib/python3.12", "/home/ann", "/lib64"}
	python := Interpreter{Executable: "/home/ann/py/bin/python3", roots: []string{"/home/ann/py"}, paths: []string{"/home/ann/py/lib/python3.12", "/"}}
	p, err := makePlan(cfg, python, describedSystem(1001, dirs, map[string]string{"/bin": "usr/bin", "/lib": "usr/lib"}), worldNamespaces, "")
	if err != nil {
		t.Fatal(err)
	}
	var bound []string
	for _, b := range p.Root.Binds {
		if b.Dir {
			bound = append(bound, b.Target)
		}
	}
	if want := []string{"/home/ann/py", "/lib64", "/usr"}; !slices.Equal(bound, want) {
		t.Errorf("binds %q, want %q", bound, want)
	}
	if p.Root.MountPoint != "/sys" || p.Order != orderUser || p.Inside != sandboxUID {
		t.Errorf("got %+v", p)
	}
}

func TestPlanOfRootWithoutNamespacesTakesAnUnprivilegedID(t *testing.T) {
	t.Parallel()
	cfg, _ := Config{}.Normalize()
	p, err := makePlan(cfg, Interpreter{Executable: "/usr/bin/python3"}, describedSystem(0, []string{"/usr"}, nil), worldProcess, "/tmp/x")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID < hostIDBase || p.UIDs < 2 || p.Scratch.Path != "/tmp/x" {
		t.Errorf("got %+v", p)
	}
	limitsProcesses := func(p plan) bool {
		return slices.ContainsFunc(p.Rlimits, func(l rlimit) bool { return l.Name == "RLIMIT_NPROC" })
	}
	if !limitsProcesses(p) {
		t.Error("an id of its own has a process count of its own")
	}
	p, err = makePlan(cfg, Interpreter{Executable: "/usr/bin/python3"}, describedSystem(1001, []string{"/usr"}, nil), worldProcess, "/tmp/x")
	if err != nil || limitsProcesses(p) {
		t.Error("RLIMIT_NPROC would count every process of Caddy's user", err)
	}
}

func TestEnvironmentIsAnAllowList(t *testing.T) {
	t.Parallel()
	env := environment(func(name string) (string, bool) { return "secret", true })
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if value == "secret" && !slices.Contains(templateEnv, name) {
			t.Errorf("%s is taken from Caddy's environment", name)
		}
	}
}
