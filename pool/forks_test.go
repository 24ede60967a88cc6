package pool

import (
	"regexp"
	"testing"
	"time"
)

// Functions that a preloaded module gives to os.register_at_fork run when a worker is forked, as for os.fork.
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
