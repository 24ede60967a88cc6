// Package cgroup puts lanes into control groups of version 2 (cgroups(7)), where the system has delegated one to Caddy.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Group is the control group of a pool, in one of version 2 that the system has delegated to Caddy. Each lane gets a group below
// it. Its limits hold for all processes that the worker starts, and count memory that /proc shows for no process. nil stands for no group.
type Group struct {
	delegation delegation
	Dir        string
	memory     int64 // bytes, of each lane
	processes  int   // of each lane
}

// cgroupNumbers gives each pool of this process a number for its group's name.
var cgroupNumbers atomic.Int64

// cgroupPrefix begins the name of a pool's group. The pid of its Caddy and the pool's number follow.
const cgroupPrefix = "python-sandbox-"

// New makes the group of a pool below own, the group of this process as Own returns it. memory, in bytes, and processes bound each lane.
// The error says why control groups cannot be used. The caller must Remove the group.
func New(own string, euid int, memory int64, processes int) (*Group, error) {
	d, err := findDelegation(own, euid)
	if err != nil {
		return nil, err
	}
	if err := d.take(); err != nil {
		return nil, fmt.Errorf("the control group %s cannot be divided: %w", d.dir, err)
	}
	g := &Group{
		delegation: d,
		Dir:        filepath.Join(d.dir, fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), cgroupNumbers.Add(1))),
		memory:     memory,
		processes:  processes,
	}
	if err = os.Mkdir(g.Dir, 0o755); err == nil {
		err = d.enable(g.Dir, "+")
	}
	if err != nil {
		g.Remove()
		return nil, fmt.Errorf("the control group %s cannot be divided: %w", d.dir, err)
	}
	return g, nil
}

// Enter puts a lane into a group of its own, and returns that. The lane must not have forked yet. When the pool's group or its controllers
// have been taken away meanwhile, Enter makes them anew; no lane runs without its limits.
func (g *Group) Enter(pid int) (LaneGroup, error) {
	dir, err := g.enter(pid)
	if errors.Is(err, fs.ErrNotExist) && g.restore() == nil {
		dir, err = g.enter(pid)
	}
	if err != nil {
		return "", fmt.Errorf("%w; delegate the controllers memory and pids to Caddy's group again, or restart Caddy", err)
	}
	return dir, nil
}

func (g *Group) restore() error {
	if err := os.Mkdir(g.Dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := g.delegation.enable(g.delegation.dir, "+"); err != nil {
		return err
	}
	return g.delegation.enable(g.Dir, "+")
}

func (g *Group) enter(pid int) (LaneGroup, error) {
	dir := LaneGroup(filepath.Join(g.Dir, strconv.Itoa(pid)))
	if err := os.Mkdir(string(dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) { // a lane that has ended had the same pid
		return "", err
	}
	for _, write := range [][2]string{
		{"memory.max", strconv.FormatInt(g.memory, 10)}, {"pids.max", strconv.Itoa(g.processes)}, {"cgroup.procs", strconv.Itoa(pid)},
	} {
		if err := writeFile(filepath.Join(string(dir), write[0]), write[1]); err != nil {
			dir.Remove()
			return "", err
		}
	}
	_ = writeFile(filepath.Join(string(dir), "memory.swap.max"), "0") // the file is missing without swap accounting
	return dir, nil
}

// Remove removes the pool's group. Its lanes must have ended. It does nothing for nil.
func (g *Group) Remove() {
	if g != nil {
		removeGroup(g.Dir)
		g.delegation.giveBack()
	}
}

// LaneGroup is the directory of a lane's group; "" for none.
type LaneGroup string

// Kill kills all processes in the group at once (cgroup.kill, Linux 5.14). It does nothing for "", or on an older kernel.
func (c LaneGroup) Kill() {
	if c != "" {
		_ = writeFile(filepath.Join(string(c), "cgroup.kill"), "1")
	}
}

// Killed returns how many processes in the group the kernel has killed for want of memory.
func (c LaneGroup) Killed() int64 {
	if c == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(string(c), "memory.events"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			return n
		}
	}
	return 0
}

// Remove removes the group, whose processes must have been killed. It does nothing for "".
func (c LaneGroup) Remove() {
	if c != "" {
		removeGroup(string(c))
	}
}

// removeGroup removes a group whose processes have been killed, and waits up to a second for them to end.
func removeGroup(dir string) {
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if err := os.Remove(dir); err == nil || !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(wait)
	}
}

// writeFile writes text to an existing file with one write(2), as the files of control groups require.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
