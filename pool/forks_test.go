package pool

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// What a preloaded module wants done at a fork is done for each worker, as by os.fork.
func TestPreloadedModulesSeeForks(t *testing.T) {
	t.Parallel()
	dir := moduleDir(t, "watches_forks", `import os
calls = []
os.register_at_fork(before=lambda: calls.append('before 1'), after_in_child=lambda: calls.append('child 1'))
os.register_at_fork(before=lambda: calls.append('before 2'), after_in_child=lambda: calls.append('child 2'), after_in_parent=lambda: calls.append('parent'))
os.register_at_fork(after_in_child=lambda: 1 / 0)
`)
	for name, isolation := range map[string]Isolation{"namespaces": IsolationStrict, "process": IsolationNone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: isolation, Templates: 1, Idle: 1, Max: 1, PythonPath: []string{dir}, Preload: []string{"watches_forks", "random", "threading", "logging"}})
			seen := map[string]bool{}
			for range 3 {
				r := execute(t, p, `import logging, os, random, threading, watches_forks
logging.warning('a lock')
print(watches_forks.calls[-4:], threading.main_thread() is threading.current_thread(), threading.active_count(), os.register_at_fork.__name__)
watches_forks.calls.clear()
if os.fork() == 0: os._exit(len(watches_forks.calls))
print(os.waitstatus_to_exitcode(os.wait()[1]), watches_forks.calls[-1])
t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()
print(random.random())`, 10*time.Second)
				line := regexp.MustCompile(`0\.\d+(e-\d+)?\n$`).FindString(r.Stdout)
				if r.Stdout != "['before 2', 'before 1', 'child 1', 'child 2'] True 1 register_at_fork\n4 parent\nthread\n"+line || r.Status != StatusOK {
					t.Errorf("got %+v", r)
				}
				if seen[line] {
					t.Errorf("%s came twice", line)
				}
				seen[line] = true
			}
		})
	}
}

// What registered itself before templates began to look is not lost: they fork as Python does.
func TestForksWithUnseenHooks(t *testing.T) {
	t.Parallel()
	forks, err := pythonSources.ReadFile("python/forks.py")
	if err != nil {
		t.Fatal(err)
	}
	for early, want := range map[string]string{"": "True False", "os.register_at_fork(after_in_child=lambda: None)": "False True", "os.register_at_fork(before=lambda: None)": "False True"} {
		script := "import os\n" + early + "\nscope = {}\nexec(" + strconv.Quote(string(forks)) + ", scope)\n" + `
known = scope["is_silent"]()
scope["watch"]()
scope["settle"](known)
print(known, scope["fork"] is os.fork, end="")
`
		out, err := exec.CommandContext(t.Context(), "python3", "-I", "-S", "-c", script).CombinedOutput() // without a site, which may register something
		if err != nil || string(out) != want {
			t.Errorf("after %q: %s, %v, want %s", early, out, err, want)
		}
	}
}

// A lane has no more of its files mapped than runs need: each page costs every fork and every exit.
func TestLanesMapWhatRunsNeed(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1})
	execute(t, p, "print(1)", 10*time.Second)
	p.mu.Lock()
	var lane, template int
	for l := range p.lanes {
		lane, template = l.pid, l.template.cmd.Process.Pid
	}
	p.mu.Unlock()
	files := func(pid int) int64 {
		s := procfs.ReadStatus(pid)
		return s.Resident - s.Anonymous - s.SharedResident
	}
	if of, all := files(lane), files(template); of <= 0 || of > all*2/3 {
		t.Errorf("a lane has %d bytes of files mapped, its template %d", of, all)
	}
}
