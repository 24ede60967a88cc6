package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// After the last pool has given a delegation back, the group must take processes again, such as the next one of the service. The groups are
// real, but have no controllers, since few machines let a test use those.
func TestADelegationIsLeftAsItWasFound(t *testing.T) {
	t.Parallel()
	dir := testGroup(t)
	leaf := filepath.Join(dir, "caddy")
	service := sleepIn(t, dir)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	pool := func(pid int) string { return filepath.Join(dir, "python-sandbox-"+strconv.Itoa(pid)+"-1") }
	stale, alive := pool(dead.Process.Pid), pool(service.Process.Pid)
	for _, group := range []string{stale, filepath.Join(stale, "77"), alive} {
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when string, group string, want bool) {
		t.Helper()
		if _, err := os.Stat(group); (err == nil) != want {
			t.Errorf("%s: %s is there: %v", when, filepath.Base(group), !want)
		}
	}
	holds := func(when, group string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(group, "cgroup.procs")); err != nil || string(text) != strconv.Itoa(service.Process.Pid)+"\n" {
			t.Errorf("%s: %s holds %q, %v", when, filepath.Base(group), text, err)
		}
	}
	d := delegation{dir: dir}
	for _, when := range []string{"first", "again"} {
		for _, pool := range []string{" pool", " second pool, as at a reload"} {
			if err := d.take(); err != nil {
				t.Fatal(err)
			}
			holds(when+pool, leaf)
		}
		is(when, stale, false)
		is(when, alive, true)
		d.giveBack()
		holds(when+", one pool left", leaf)
		d.giveBack()
		holds(when+", given back", dir)
		is(when+", given back", leaf, false)
	}
	if err := os.Mkdir(leaf, 0o755); err != nil { // a leaf that systemd has made (DelegateSubgroup=caddy)
		t.Fatal(err)
	}
	if err := d.take(); err != nil {
		t.Fatal(err)
	}
	d.giveBack()
	holds("a leaf that was there", leaf)
	_ = service.Process.Kill()
	_ = service.Wait()
	for _, group := range []string{alive, leaf} {
		if err := unix.Rmdir(group); err != nil {
			t.Errorf("%s: %v", filepath.Base(group), err)
		}
	}
}

func TestDelegationsAreFoundAboveTheLeaf(t *testing.T) {
	t.Parallel()
	outer := describedCgroup(t, "cpu memory pids\n", "memory pids\n")
	leaf := filepath.Join(outer, "caddy")
	if err := os.Mkdir(leaf, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{outer, leaf} {
		if d, err := findDelegation(own, 1000); err != nil || d.dir != outer {
			t.Errorf("from %s: got %s, %v", own, d.dir, err)
		}
	}
	if d, err := findDelegation(filepath.Join(outer, "other"), 1000); err == nil {
		t.Errorf("from a group of another name: got %s", d.dir)
	}
}

// The control group of a login session may be writable for Caddy's user, but is not divided, since other processes are in it.
func TestGroupsWithOtherProcessesAreNotDivided(t *testing.T) {
	t.Parallel()
	orphan, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output() // no descendant: sh has ended
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(orphan)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	dir := describedCgroup(t, "memory pids\n", "memory pids\n")
	for _, c := range []struct {
		pid  int
		want string
	}{{os.Getpid(), ""}, {child.Process.Pid, ""}, {pid, "process " + strconv.Itoa(pid) + " is in it, too"}} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(c.pid)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := findDelegation(dir, 1000); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %d: got %v, want %q", c.pid, err, c.want)
		}
	}
}
