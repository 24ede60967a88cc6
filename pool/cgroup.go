package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// cgroup is a control group of version 2 that the system has delegated to Caddy (cgroups(7); systemd: Delegate=yes). Each
// lane gets a group below it, whose limits hold for all that its worker starts and count what no process shows.
type cgroup struct {
	dir       string
	memory    int64 // bytes, of each lane
	processes int   // of each lane
}

// cgroupNumbers tells the pools of this process apart.
var cgroupNumbers atomic.Int64

// cgroupControllers are those that limits need.
var cgroupControllers = []string{"memory", "pids"}

// ownCgroup returns the directory of this process's group of version 2, "" when there is none, from the text of
// /proc/self/cgroup and /proc/self/mountinfo.
func ownCgroup(membership, mounts string) string {
	var path string
	for line := range strings.Lines(membership) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = rest
		}
	}
	if path == "" || strings.HasPrefix(path, "/..") { // outside of the cgroup namespace
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

// delegated says whether the group is Caddy's to divide. Without root the right to write says so; root may write anywhere,
// so there it takes systemd's mark, or a group that is the root of a container's own hierarchy.
func delegated(own string, euid int) bool {
	if euid != 0 {
		return unix.Access(filepath.Join(own, "cgroup.subtree_control"), unix.W_OK) == nil
	}
	for _, mark := range []string{"user.delegate", "trusted.delegate"} {
		var value [1]byte
		if n, err := unix.Getxattr(own, mark, value[:]); err == nil && n == 1 && value[0] == '1' {
			return true
		}
	}
	_, err := os.Stat(filepath.Join(own, "cgroup.type")) // the root of the system has none
	_, errAbove := os.Stat(filepath.Join(own, "..", "cgroup.procs"))
	return err == nil && errAbove != nil
}

// newCgroup makes the group of a pool below own, which is Caddy's. The error says why it cannot.
func newCgroup(own string, euid int, cfg Config) (*cgroup, error) {
	if own == "" {
		return nil, errors.New("the system has no control groups of version 2")
	}
	if !delegated(own, euid) {
		return nil, fmt.Errorf("the control group %s is not delegated to Caddy", own)
	}
	if err := checkControllers(filepath.Join(own, "cgroup.controllers")); err != nil {
		return nil, err
	}
	if err := checkControllers(filepath.Join(own, "cgroup.subtree_control")); err != nil {
		if err := delegate(own); err != nil {
			return nil, fmt.Errorf("the control group %s is not delegated to Caddy: %w", own, err)
		}
	}
	g := &cgroup{
		dir:       filepath.Join(own, fmt.Sprintf("python-sandbox-%d-%d", os.Getpid(), cgroupNumbers.Add(1))),
		memory:    cfg.Memory + cfg.Scratch, // files in scratch count too
		processes: cfg.Processes + 1,        // the lane's own
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("the control group %s is not delegated to Caddy: %w", own, err)
	}
	if err := enableControllers(g.dir); err != nil {
		g.remove()
		return nil, err
	}
	return g, nil
}

func checkControllers(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	have := strings.Fields(string(text))
	for _, want := range cgroupControllers {
		if !slices.Contains(have, want) {
			return fmt.Errorf("%s lacks the controller %s", file, want)
		}
	}
	return nil
}

func enableControllers(dir string) error {
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(cgroupControllers, " +"))
}

// delegate moves what is in Caddy's group to one below it: a group with controllers for others may hold no process itself.
func delegate(own string) error {
	leaf := filepath.Join(own, "caddy")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	text, err := os.ReadFile(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(text)) {
		if err := writeFile(filepath.Join(leaf, "cgroup.procs"), pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	return enableControllers(own)
}

// enter puts a lane that has forked nothing yet into a group of its own, and returns that.
func (g *cgroup) enter(pid int) (laneCgroup, error) {
	dir := laneCgroup(filepath.Join(g.dir, strconv.Itoa(pid)))
	if err := os.Mkdir(string(dir), 0o755); err != nil {
		return "", err
	}
	for _, write := range [][2]string{
		{"memory.max", strconv.FormatInt(g.memory, 10)}, {"pids.max", strconv.Itoa(g.processes)}, {"cgroup.procs", strconv.Itoa(pid)},
	} {
		if err := writeFile(filepath.Join(string(dir), write[0]), write[1]); err != nil {
			dir.remove()
			return "", err
		}
	}
	_ = writeFile(filepath.Join(string(dir), "memory.swap.max"), "0") // there without swap accounting or not
	return dir, nil
}

// remove takes the pool's group away once its lanes are gone.
func (g *cgroup) remove() { _ = os.Remove(g.dir) }

// laneCgroup is the directory of a lane's group; "" for none.
type laneCgroup string

// kill ends everything in the group at once (Linux 5.14).
func (c laneCgroup) kill() {
	if c != "" {
		_ = writeFile(filepath.Join(string(c), "cgroup.kill"), "1")
	}
}

// killed counts the processes that the kernel has ended for want of memory.
func (c laneCgroup) killed() int64 {
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

func (c laneCgroup) remove() {
	if c != "" {
		_ = os.Remove(string(c))
	}
}

// writeFile writes in one call, as control files want it, and makes no file.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
