package confine

import (
	"path/filepath"
	"slices"
	"testing"
)

var testLimits = Limits{Memory: 512 << 20, Processes: 64, Scratch: 256 << 20, OpenFiles: 256}

// describedSystem returns a system with the given directories and symbolic links, and nothing else.
func describedSystem(euid int, dirs []string, links map[string]string) System {
	return System{
		Euid:  euid,
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
	python := Sources{Executable: "/home/ann/py/bin/python3", Roots: []string{"/home/ann/py"}, Paths: []string{"/home/ann/py/lib/python3.12", "/"}}
	p, err := New(testLimits, python, describedSystem(1001, dirs, map[string]string{"/bin": "usr/bin", "/lib": "usr/lib"}), WorldNamespaces, "")
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
	if p.Root.MountPoint != "/sys" || p.Order != OrderUser || p.Inside != SandboxUID {
		t.Errorf("got %+v", p)
	}
}

func TestPlanOfRootWithoutNamespacesTakesAnUnprivilegedID(t *testing.T) {
	t.Parallel()
	p, err := New(testLimits, Sources{Executable: "/usr/bin/python3"}, describedSystem(0, []string{"/usr"}, nil), WorldProcess, "/tmp/x")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID < HostIDBase || p.UIDs < 2 || p.Scratch.Path != "/tmp/x" {
		t.Errorf("got %+v", p)
	}
}

// A lane sets RLIMIT_NPROC only where the kernel counts no other processes with those of the lane.
func TestLanesLimitProcessesWhereTheyAreCountedAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		euid    int
		world   World
		release string
		want    bool
	}{
		{0, WorldProcess, "5.10.0", true}, {0, WorldNamespaces, "5.10.0", true}, // for root each lane has its own uid
		{1001, WorldProcess, "6.12.1", false},
		{1001, WorldNamespaces, "5.13.19-generic", false}, {1001, WorldNamespaces, "", false},
		{1001, WorldNamespaces, "5.14.0-rc1", true}, {1001, WorldNamespaces, "6.1.0-53-cloud-amd64", true}, {1001, WorldNamespaces, "10.0", true},
	} {
		sys := describedSystem(c.euid, []string{"/usr"}, nil)
		sys.release = c.release
		p, err := New(testLimits, Sources{Executable: "/usr/bin/python3"}, sys, c.world, "/tmp/x")
		if err != nil || p.LimitsProcesses() != c.want {
			t.Errorf("%+v: got %v, %v", c, p.LimitsProcesses(), err)
		}
	}
}
