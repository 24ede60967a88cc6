// Command asfound runs a command and fails when that leaves the machine otherwise than it has found it: the modes and owners of the
// system's directories and devices, mounts, processes, and files in TMPDIR, which is a directory of its own. `make test` runs the tests
// in it, so that neither their order nor Go's cache of results matters.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long what the command has started may take to end after it.
const grace = 5 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: asfound COMMAND [ARGUMENT]...")
		os.Exit(2)
	}
	code, left, err := run("/", os.Args[1:])
	for _, what := range left {
		fmt.Fprintln(os.Stderr, "asfound:", what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "asfound:", err)
	}
	if code == 0 && (err != nil || len(left) > 0) {
		code = 1
	}
	os.Exit(code)
}

// run runs a command, and returns its exit code and what it has left behind.
func run(root string, command []string) (code int, left []string, err error) {
	before, err := look(root)
	if err != nil {
		return 1, nil, err
	}
	tmp, err := os.MkdirTemp("", "sandbox-run-")
	if err != nil {
		return 1, nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil { // as the system's: some tests are of other users
		return 1, nil, fmt.Errorf("opening it to everybody: %w", err)
	}
	code, left, err = await(command, append(os.Environ(), "TMPDIR="+tmp))
	if err != nil {
		return 1, nil, err
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		return code, left, fmt.Errorf("listing %s: %w", tmp, err)
	}
	for _, path := range files {
		left = append(left, path+" is left")
	}
	after, err := look(root)
	if err != nil {
		return code, left, err
	}
	return code, append(left, before.changes(after)...), nil
}

// await runs a command and waits for all that it has started. Processes whose parent has ended become children of this one, so that none
// is lost; those that go on are ended.
func await(command, env []string) (code int, left []string, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, nil, fmt.Errorf("asking for the children of those that end: %w", err)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return 1, nil, fmt.Errorf("finding the command: %w", err)
	}
	p, err := os.StartProcess(path, command, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, nil, fmt.Errorf("starting the command: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM) // the terminal tells the command, too; what it leaves is to be seen
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				_ = p.Signal(s) // it has ended already
			}
		}
	}()
	defer signal.Stop(signals)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 1, nil, fmt.Errorf("waiting: %w", err)
		}
		if pid == p.Pid {
			if code = status.ExitStatus(); status.Signaled() {
				code = 128 + int(status.Signal())
			}
			break
		}
	}
	left, err = endChildren(grace)
	return code, left, err
}

// endChildren waits until this process has no children any more, and says which it had to end.
func endChildren(grace time.Duration) (ended []string, err error) {
	for deadline := time.Now().Add(grace); ; {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			return ended, nil
		case errors.Is(err, syscall.EINTR), err == nil && pid > 0:
			continue
		case err != nil:
			return ended, fmt.Errorf("waiting: %w", err)
		case time.Now().Before(deadline):
			time.Sleep(20 * time.Millisecond)
			continue
		}
		// Theirs become ours when they end, and get a turn of their own.
		pids, err := children()
		if err != nil {
			return ended, err
		}
		for _, pid := range pids {
			ended = append(ended, fmt.Sprintf("process %d is left: %s", pid, commandLine(pid)))
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return ended, fmt.Errorf("ending process %d: %w", pid, err)
			}
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
				return ended, fmt.Errorf("waiting for process %d: %w", pid, err)
			}
		}
	}
}

// children are those of this process, from every thread of it.
func children() (pids []int, err error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, fmt.Errorf("listing threads: %w", err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return "its command line cannot be read"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}
