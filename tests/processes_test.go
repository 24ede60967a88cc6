package tests

import (
	"io"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// process is a line of /proc/PID/stat.
type process struct {
	pid, parent int
	name, state string
	start       string // since boot, so that a reused pid is another process
}

func processes(t testing.TB) map[int]process {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]process{}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		if p, ok := processAt("/proc/" + entry.Name() + "/stat"); ok {
			all[p.pid] = p
		}
	}
	return all
}

// processAt reads a /proc/PID/stat; ok is false when the process has ended meanwhile.
func processAt(path string) (p process, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return p, false
	}
	// The name stands in parentheses and may hold any character.
	open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[end+1:]))
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	if err != nil || len(fields) < 20 {
		return p, false
	}
	parent, err := strconv.Atoi(fields[1])
	return process{pid: pid, parent: parent, name: string(b[open+1 : end]), state: fields[0], start: fields[19]}, err == nil
}

// descendants returns the processes below pid, sorted by pid. Zombies count: somebody has to reap them. Their states are left
// out, so that two lists of the same processes are equal.
func descendants(t testing.TB, pid int) []process {
	t.Helper()
	all := processes(t)
	var below []process
	for _, p := range all {
		for parent := p.parent; parent != 0; parent = all[parent].parent {
			if parent == pid {
				p.state = ""
				below = append(below, p)
				break
			}
		}
	}
	slices.SortFunc(below, func(a, b process) int { return a.pid - b.pid })
	return below
}

// seeBelow adds the processes below pid that are there now to seen. Unlike descendants it looks at them alone, so that it sees
// what lives for some milliseconds; where the kernel does not list children (proc(5), CONFIG_PROC_CHILDREN) it looks at all.
func seeBelow(t testing.TB, pid int, seen map[process]bool) {
	t.Helper()
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/1/task/1/children"); err != nil {
		for _, p := range descendants(t, pid) {
			seen[p] = true
		}
		return
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // it ended meanwhile
		}
		for _, field := range strings.Fields(string(text)) {
			p, ok := processAt("/proc/" + field + "/stat")
			if !ok {
				continue
			}
			p.state = ""
			seen[p] = true
			seeBelow(t, p.pid, seen)
		}
	}
}

// children returns the direct children of pid. Those of Caddy are the templates.
func children(t testing.TB, pid int) []process {
	t.Helper()
	return slices.DeleteFunc(descendants(t, pid), func(p process) bool { return p.parent != pid })
}

// living are those of the very processes that were seen which still run. A zombie does not.
func living(t testing.TB, seen iter.Seq[process]) []process {
	t.Helper()
	all := processes(t)
	var left []process
	for p := range seen {
		if now, ok := all[p.pid]; ok && now.start == p.start && now.state != "Z" && now.state != "X" {
			left = append(left, p)
		}
	}
	return left
}

// footprint is what a server holds and must give back.
type footprint struct {
	processes, descriptors, goroutines, files, mounts, hostMounts int
}

func (c *caddy) footprint() footprint {
	c.Helper()
	c.client.CloseIdleConnections()
	dir := "/proc/" + strconv.Itoa(c.pid())
	return footprint{
		processes:   len(descendants(c, c.pid())),
		descriptors: entries(c, dir+"/fd"),
		goroutines:  c.goroutines(),
		files:       entries(c, c.tmp()),
		mounts:      lines(c, dir+"/mountinfo"),
		hostMounts:  lines(c, "/proc/self/mountinfo"),
	}
}

// within says whether f holds no more than base. The pool may have grown lanes up to its bound meanwhile, each with its
// descriptors and goroutines. Beyond that there is a little room for connections that the kernel or the look itself has
// open at the moment.
func (f footprint) within(base footprint, most int) bool {
	grown := max(0, f.processes-base.processes)
	return f.processes <= most && f.descriptors <= base.descriptors+2+4*grown && f.goroutines <= base.goroutines+4+2*grown &&
		f.files <= base.files && f.mounts <= base.mounts && f.hostMounts <= base.hostMounts
}

func entries(t testing.TB, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func lines(t testing.TB, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// goroutines asks the admin listener: "goroutine profile: total 42".
func (c *caddy) goroutines() int {
	c.Helper()
	resp, err := http.Get("http://" + c.admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(first[strings.LastIndexByte(first, ' ')+1:])
	if err != nil {
		c.Fatalf("%q: %v", first, err)
	}
	return n
}
