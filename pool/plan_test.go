package pool

import (
	"path/filepath"
	"slices"
	"testing"
)

var testLimits = limits{memory: 512 << 20, processes: 64, scratch: 256 << 20, openFiles: 256}

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
	dirs := []string{"/usr", "/sys", "/home/ann/py", "/home/ann/py/bin", "/home/ann/py/lib/python3.12", "/home/ann", "/lib64"}
	python := sources{executable: "/home/ann/py/bin/python3", roots: []string{"/home/ann/py"}, paths: []string{"/home/ann/py/lib/python3.12", "/"}}
	p, err := makePlan(testLimits, python, describedSystem(1001, dirs, map[string]string{"/bin": "usr/bin", "/lib": "usr/lib"}), worldNamespaces, "")
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
	p, err := makePlan(testLimits, sources{executable: "/usr/bin/python3"}, describedSystem(0, []string{"/usr"}, nil), worldProcess, "/tmp/x")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID < hostIDBase || p.UIDs < 2 || p.Scratch.Path != "/tmp/x" {
		t.Errorf("got %+v", p)
	}
}

// RLIMIT_NPROC of a lane holds for what its worker starts only where nobody else is counted with it.
func TestLanesLimitProcessesWhereTheyAreCountedAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		euid    int
		world   world
		release string
		want    bool
	}{
		{0, worldProcess, "5.10.0", true}, {0, worldNamespaces, "5.10.0", true}, // an id of its own
		{1001, worldProcess, "6.12.1", false},
		{1001, worldNamespaces, "5.13.19-generic", false}, {1001, worldNamespaces, "", false},
		{1001, worldNamespaces, "5.14.0-rc1", true}, {1001, worldNamespaces, "6.1.0-53-cloud-amd64", true}, {1001, worldNamespaces, "10.0", true},
	} {
		sys := describedSystem(c.euid, []string{"/usr"}, nil)
		sys.release = c.release
		p, err := makePlan(testLimits, sources{executable: "/usr/bin/python3"}, sys, c.world, "/tmp/x")
		if err != nil || p.limitsProcesses() != c.want {
			t.Errorf("%+v: got %v, %v", c, p.limitsProcesses(), err)
		}
	}
}
