package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

func TestOwnCgroupIsFoundInItsMount(t *testing.T) {
	t.Parallel()
	const unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, c := range []struct{ membership, mounts, want string }{
		{"0::/system.slice/caddy.service\n", unified, "/sys/fs/cgroup/system.slice/caddy.service"},
		{"12:memory:/x\n0::/\n", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"0::/kubepods/pod1/c1\n", "30 24 0:26 /kubepods/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup"},
		{"0::/../other\n", unified, ""}, {"9:memory:/x\n", unified, ""}, {"", "", ""},
		{"0::/a\n", "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", ""},
	} {
		if got := cgroupIn(c.membership, c.mounts); got != c.want {
			t.Errorf("%q: got %q, want %q", c.membership, got, c.want)
		}
	}
}

// describedCgroup makes an ordinary directory with the files of a control group, since few machines let a test use real controllers.
func describedCgroup(t *testing.T, controllers, enabled string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": enabled, "cgroup.procs": "", "cgroup.type": "domain\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCgroupsThatAreNotOursAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own  string
		euid int
		want string
	}{
		{"", 1000, "no control groups"},
		{describedCgroup(t, "cpu io pids\n", "pids\n"), 1000, "lacks the controller memory"},
		{"/proc/self", 1000, "not delegated"},
	} {
		if d, err := findDelegation(c.own, c.euid); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, %v", c.own, d, err)
		}
	}
}

// testGroup makes a real control group, without controllers, below that of the test. It skips the test where this user may not.
func testGroup(t *testing.T) string {
	t.Helper()
	own := Own()
	dir := filepath.Join(own, "test-"+strconv.Itoa(os.Getpid())+"-"+t.Name())
	if own == "" || os.Mkdir(dir, 0o755) != nil {
		skip.Without(t, "no group of version 2 can be made here, or none is delegated to this user")
	}
	t.Cleanup(func() { removeGroup(dir) })
	return dir
}

// sleepIn starts a process in a group. The end of the test kills it.
func sleepIn(t *testing.T, group string) *exec.Cmd {
	t.Helper()
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	})
	if err := writeFile(filepath.Join(group, "cgroup.procs"), strconv.Itoa(sleep.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	return sleep
}

// Kill ends the processes in a real group, which needs no controllers.
func TestCgroupKillsWhatIsInIt(t *testing.T) {
	t.Parallel()
	group := LaneGroup(testGroup(t))
	sleep := sleepIn(t, string(group))
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	group.Kill()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended by itself")
		}
	case <-time.After(10 * time.Second):
		t.Error("it lives on")
	}
	if n := group.Killed(); n != 0 {
		t.Errorf("%d were ended for want of memory", n)
	}
}

// A group without controllers, which somebody has taken away and which cannot be had again, takes no lane: the error says what to do.
func TestALaneIsNotPutIntoAGroupWithoutControllers(t *testing.T) {
	t.Parallel()
	g := &Group{Dir: filepath.Join(t.TempDir(), "pool")} // files of a control group are missing here
	if err := os.Mkdir(g.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := g.Enter(os.Getpid())
	if err == nil || dir != "" || !strings.Contains(err.Error(), "memory.max") || !strings.Contains(err.Error(), "delegate the controllers memory and pids") {
		t.Errorf("got %q, %v", dir, err)
	}
	if left, _ := os.ReadDir(g.Dir); len(left) > 0 {
		t.Errorf("%s is left of a lane that was not put into its group", left[0].Name())
	}
}
