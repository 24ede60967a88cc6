package tests

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched is a command of Caddy's that was watched to its end.
type watched struct {
	out   lockedBuffer
	pid   int
	code  int
	below map[process]bool // all processes that were seen below it
}

// watch runs a command of Caddy's. atWork is called once, when the second process is seen below it: the first is asked what the
// interpreter is, the next is a template. nil does nothing.
func (c *caddy) watch(atWork func(*exec.Cmd), args ...string) *watched {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	w := &watched{below: map[process]bool{}}
	cmd := c.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &w.out, &w.out
	cmd.WaitDelay = 5 * time.Second // for what survives with our pipe
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	w.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its exit code says it
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		seeBelow(c, w.pid, w.below)
		if len(w.below) > 1 && atWork != nil {
			atWork(cmd)
			atWork = nil
		}
		select {
		case <-ended:
			if w.code = cmd.ProcessState.ExitCode(); ctx.Err() != nil {
				c.Fatalf("caddy %s did not end within 90 s:\n%s", args[0], tail(w.out.String(), 4000))
			}
			return w
		case <-tick.C:
		}
	}
}

// expectNothingLeft looks for what the end of a Caddy may leave behind.
func (c *caddy) expectNothingLeft(w *watched) {
	c.Helper()
	if len(w.below) == 0 {
		c.Error("no process was seen below Caddy: nothing was tried")
	}
	for _, p := range living(c, maps.Keys(w.below)) {
		c.Errorf("process %d, %s, lives on", p.pid, p.name)
	}
	left, err := filepath.Glob(filepath.Join(c.tmp(), "*"))
	if err != nil {
		c.Fatal(err)
	}
	if len(left) > 0 {
		c.Errorf("the temporary directory holds %v", left)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), fmt.Sprintf("python-sandbox-%d-", w.pid)) {
			c.Errorf("the control group %s is left", path)
		}
		return nil // groups come and go
	})
}

// A configuration that never comes to serve leaves no scratch directory, process or control group behind, however Caddy comes
// to end: its process ends as soon as the configuration is cleaned up.
func TestConfigurationsThatServeNothingLeaveNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	type refusal struct{ site, global string }
	otherModule := refusal{site: "reverse_proxy 127.0.0.1:1 {\n transport http {\n tls_trusted_ca_certs /nonexistent/ca.pem\n }\n }"}
	listener := refusal{global: "}\nhttp://:" + port + " {\n bind 127.0.0.1\n respond taken"} // ends the global options
	sigterm := func(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) }

	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			if w.root && os.Geteuid() != 0 {
				t.Skip("only root can start Caddy as root")
			}
			for _, s := range []struct {
				name, command string
				refusal
				atWork func(*exec.Cmd)
				ok     bool
				says   string
			}{
				{"validate", "validate", refusal{}, nil, true, "Valid configuration"},
				{"validate, which another module refuses", "validate", otherModule, nil, false, "/nonexistent/ca.pem"},
				{"adapt --validate", "adapt --validate", refusal{}, nil, true, `"python_sandbox"`},
				{"a start that another module refuses", "run", otherModule, nil, false, "/nonexistent/ca.pem"},
				{"a start whose listener is taken", "run", listener, nil, false, "address already in use"},
				{"a start that is ended", "run", refusal{}, sigterm, true, "SIGTERM"},
			} {
				t.Run(s.name, func(t *testing.T) {
					o := caddyOptions{directive: "jupyter on\npython " + systemPython(t), site: s.site, global: s.global, noNamespaces: !w.namespaces}
					if !w.root {
						o.credential = ordinaryUser()
					}
					c := prepare(t, o)
					words := strings.Fields(s.command)
					words = append(words, "--config", c.configFile, "--adapter", "caddyfile")
					did := c.watch(s.atWork, words...)
					for range 4 { // a signal that comes before Caddy listens to signals kills it, and is sent to another one
						if s.atWork == nil || did.code != -1 {
							break
						}
						// A process that it was starting sees only when it comes to exec that its parent is gone.
						eventually(t, 5*time.Second, "the processes of a Caddy that was killed end", func() bool { return len(living(t, maps.Keys(did.below))) == 0 })
						c.expectNothingLeft(did)
						did = c.watch(s.atWork, words...)
					}
					if (did.code == 0) != s.ok || !strings.Contains(did.out.String(), s.says) {
						t.Errorf("it ended with %d and without %q:\n%s", did.code, s.says, tail(did.out.String(), 3000))
					}
					c.expectNothingLeft(did)
				})
			}
		})
	}
}

// A pool that a reload has replaced still drains when Caddy is told to end. It leaves nothing either.
func TestExitEndsWhatAReloadHasReplaced(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "isolation best_effort\npython " + systemPython(t), noNamespaces: true})
	c.mustPrint("print(1)", "1\n")
	did := &watched{pid: c.pid(), below: map[process]bool{}}
	c.reload(c.o.directive+"\nlimits {\n output 500\n }", "")
	for _, p := range descendants(t, c.pid()) { // of both pools
		did.below[p] = true
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-c.exited
	c.expectNothingLeft(did)
}
