package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// delegation is a control group of version 2 that the system has given Caddy to divide (cgroups(7), Delegation; systemd:
// Delegate=). The pools of this process share it, and the last one restores it: a group that hands controllers to groups below takes
// no processes, and the next process that is started there must find one that does.
type delegation struct {
	dir         string
	controllers []string // the controllers that the limits need
}

// delegationLeaf is the group into which Caddy moves itself, since a group that gives controllers to those below may hold no process.
const delegationLeaf = "caddy"

// division records how take has changed a delegation, so that giveBack can undo it.
type division struct {
	pools   int
	enabled bool // the controllers were enabled
	made    bool // the leaf was made
}

// divisions are the delegations that this process has changed, by directory.
var divisions = struct {
	sync.Mutex
	of map[string]division
}{of: map[string]division{}}

// Own returns the directory of this process's group of version 2, "" when there is none.
func Own() string {
	membership, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return cgroupIn(string(membership), string(mounts))
}

// cgroupIn is Own for the text of /proc/self/cgroup and /proc/self/mountinfo.
func cgroupIn(membership, mounts string) string {
	var path string
	for line := range strings.Lines(membership) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = rest
		}
	}
	if path == "" || strings.HasPrefix(path, "/..") { // the group is outside of this cgroup namespace
		return ""
	}
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) == 0 || kind[0] != "cgroup2" {
			continue
		}
		root, point := fields[3], fields[4]
		if below, ok := strings.CutPrefix(path, root); ok || root == "/" {
			if root == "/" {
				below = path
			}
			return filepath.Join(point, below)
		}
	}
	return ""
}

// findDelegation returns the delegation that a process in the group own has. The error says why it has none.
func findDelegation(own string, euid int) (delegation, error) {
	d := delegation{dir: own, controllers: []string{"memory", "pids"}}
	if own == "" {
		return d, errors.New("the system has no control groups of version 2")
	}
	// Another pool of this process, a Caddy before it or systemd's DelegateSubgroup=caddy may have moved us to the leaf.
	if above := filepath.Dir(own); filepath.Base(own) == delegationLeaf && delegated(above, euid) == nil {
		d.dir = above
	} else if err := delegated(own, euid); err != nil {
		return d, err
	}
	return d, d.check("cgroup.controllers")
}

// delegated returns nil when Caddy may divide the group: systemd has marked it as delegated, or Caddy is root and it is the root of a
// container's hierarchy, or Caddy is not root, may write to it and is alone in it. Write access alone proves nothing: root has it
// everywhere, and an ordinary user has it in the group of the login session, where the shell and the editor are too.
func delegated(dir string, euid int) error {
	for _, mark := range []string{"user.delegate", "trusted.delegate"} {
		var value [1]byte
		if n, err := unix.Getxattr(dir, mark, value[:]); err == nil && n == 1 && value[0] == '1' {
			return nil
		}
	}
	if euid == 0 {
		_, err := os.Stat(filepath.Join(dir, "cgroup.type")) // the root of the host's hierarchy has no such file
		_, errAbove := os.Stat(filepath.Join(dir, "..", "cgroup.procs"))
		if err == nil && errAbove != nil {
			return nil //nolint:nilerr // no control group above can be read: this is the topmost that Caddy sees
		}
		return fmt.Errorf("the control group %s is not delegated to Caddy", dir)
	}
	if err := unix.Access(filepath.Join(dir, "cgroup.subtree_control"), unix.W_OK); err != nil {
		return fmt.Errorf("the control group %s is not delegated to Caddy", dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	ours := append(procfs.Descendants(os.Getpid()), os.Getpid())
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && !slices.Contains(ours, pid) && unix.Kill(pid, 0) != unix.ESRCH {
			return fmt.Errorf("the control group %s is not delegated to Caddy alone: process %d is in it, too", dir, pid)
		}
	}
	return nil
}

// check returns an error unless file, one of the group's lists of controllers, has all controllers.
func (d delegation) check(file string) error {
	path := filepath.Join(d.dir, file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	have := strings.Fields(string(text))
	for _, want := range d.controllers {
		if !slices.Contains(have, want) {
			return fmt.Errorf("%s lacks the controller %s", path, want)
		}
	}
	return nil
}

// take enables the controllers for the groups below the delegation. After each call that succeeds, giveBack must be called once.
func (d delegation) take() error {
	divisions.Lock()
	defer divisions.Unlock()
	done := divisions.of[d.dir]
	if done.pools == 0 {
		d.removeStale()
		var err error
		if done, err = d.divide(); err != nil {
			d.unite(done)
			return err
		}
	}
	done.pools++
	divisions.of[d.dir] = done
	return nil
}

// giveBack undoes take when the last pool of this process calls it.
func (d delegation) giveBack() {
	divisions.Lock()
	defer divisions.Unlock()
	done := divisions.of[d.dir]
	if done.pools--; done.pools > 0 {
		divisions.of[d.dir] = done
		return
	}
	delete(divisions.of, d.dir)
	d.unite(done)
}

// divide moves the processes in the group to the leaf, and then enables the controllers. Processes that are forked meanwhile are moved in
// the next round.
func (d delegation) divide() (done division, err error) {
	if len(d.controllers) > 0 && d.check("cgroup.subtree_control") == nil {
		return done, nil
	}
	leaf := filepath.Join(d.dir, delegationLeaf)
	err = os.Mkdir(leaf, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return done, err
	}
	done.made = err == nil
	for round := 0; ; round++ {
		if _, err := moveProcesses(d.dir, leaf); err != nil {
			return done, err
		}
		err := d.enable(d.dir, "+")
		if !errors.Is(err, unix.EBUSY) || round == 9 {
			done.enabled = err == nil
			return done, err
		}
	}
}

// unite undoes what divide has done, unless something else uses the controllers.
func (d delegation) unite(done division) {
	if done.enabled && d.enable(d.dir, "-") != nil || !done.made {
		return
	}
	leaf := filepath.Join(d.dir, delegationLeaf)
	for range 10 {
		if n, err := moveProcesses(leaf, d.dir); n == 0 || err != nil {
			break
		}
	}
	removeGroup(leaf)
}

// enable adds ("+") or removes ("-") the controllers for the groups below dir.
func (d delegation) enable(dir, sign string) error {
	if len(d.controllers) == 0 {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), sign+strings.Join(d.controllers, " "+sign))
}

// removeStale removes the groups of Caddys that were killed. One of them may have had this process's pid.
func (d delegation) removeStale() {
	left, _ := filepath.Glob(filepath.Join(d.dir, cgroupPrefix+"*-*"))
	for _, dir := range left {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || pid != os.Getpid() && unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		lanes, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		for _, file := range lanes {
			_ = os.Remove(filepath.Dir(file)) // fails while a process is in it
		}
		_ = os.Remove(dir)
	}
}

// moveProcesses moves the processes of one group to another, and returns how many there were.
func moveProcesses(from, to string) (int, error) {
	text, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	pids := strings.Fields(string(text))
	for _, pid := range pids {
		if err := writeFile(filepath.Join(to, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, err
		}
	}
	return len(pids), nil
}
