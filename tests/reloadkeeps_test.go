package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sandboxLog returns the global options that send what the sandbox logs, and nothing else, to a file.
func sandboxLog(file string) string {
	return "log sandbox {\n output file " + file + "\n include http.handlers.python_sandbox\n }"
}

// logged counts the lines of a log file that have a message.
func logged(t testing.TB, file, message string) (n int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(text), `"msg":"`+message+`"`)
}

// refuseReload gives the server a configuration that it must refuse with words.
func (c *caddy) refuseReload(directive, site, want string) {
	c.Helper()
	c.configure(directive, site)
	out, code := c.outcome("reload", "--config", c.configFile, "--adapter", "caddyfile", "--address", c.admin)
	if code == 0 || !strings.Contains(out, want) {
		c.Fatalf("the reload ended with %d, want a refusal that says %q:\n%s", code, want, tail(out, 2000))
	}
	// A server of the refused configuration may have begun to listen. Caddy ends it after it has answered.
	eventually(c, wholeWithin, "the listener of the old configuration alone", func() bool { return listeners(c, c.addr) == 1 })
	c.client.CloseIdleConnections()
	closeClients()
}

// templates are those of a server, of which some end so that the pool has something to log. It logs the end of the one in a
// place, and of those that follow there, once in ten seconds.
type templates struct {
	*caddy
	kept  string            // begins the names of the programs that must not end
	ended map[int]time.Time // when the one in the place of a template ended, by the pid
}

// end ends a template that has none of the programs that are kept, and waits for the one that follows.
func (ts *templates) end() {
	ts.Helper()
	whole := func(h health) bool {
		return h.Workers["booting"] == 0 && h.Workers["idle"] > 0 && h.Templates.Ready == h.Templates.Target
	}
	ts.waitHealth(wholeWithin, "a whole pool", whole)
	var chosen process
	eventually(ts, 4*wholeWithin, "a template without kept programs whose end is logged", func() bool {
		for _, p := range children(ts, ts.pid()) {
			keeps := slices.ContainsFunc(descendants(ts, p.pid), func(below process) bool { return strings.HasPrefix(below.name, ts.kept) })
			if !keeps && time.Since(ts.ended[p.pid]) > 11*time.Second {
				chosen = p
				return true
			}
		}
		return false
	})
	before := children(ts, ts.pid())
	if err := syscall.Kill(chosen.pid, syscall.SIGKILL); err != nil {
		ts.Fatal(err)
	}
	eventually(ts, 2*wholeWithin, "another template in its place", func() bool {
		for _, p := range children(ts, ts.pid()) {
			if !slices.Contains(before, p) {
				ts.ended[p.pid] = time.Now()
				return true
			}
		}
		return false
	})
	ts.waitHealth(2*wholeWithin, "a whole pool", whole)
}

// Whoever reloads a server that people work on disturbs none of them, whether the new configuration is accepted or refused:
// kernels, running cells, MCP sessions and processes are as they were, and the log is that of the configuration that serves.
func TestReloadsKeepWhatTheyLeaveAlone(t *testing.T) {
	t.Parallel()
	const directive = "jupyter on\nworkers {\n idle 1\n max 8\n templates 5\n }\nlimits {\n execute_timeout 120s\n }"
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	c := prepare(t, caddyOptions{directive: directive})
	logFile := func(name string) string { return filepath.Join(c.o.home, name+".log") }
	c.o.global = sandboxLog(logFile("first"))
	c.configure(directive, "")
	c.start()

	const named = "keptkernel"
	name := func(n int) string { // as prctl(PR_SET_NAME) does
		return fmt.Sprintf("import ctypes\nctypes.CDLL(None).prctl(15, b'%s%d')\n", named, n)
	}
	kernel, busy := c.newKernel(), c.newKernel()
	kernel.expect(name(1)+"x = 1\nopen('kept', 'w').write('a file');", "ok")
	began := time.Now()
	cell := busy.begin(name(2) + "import time\nprint('running', flush=True)\ntry: time.sleep(115)\nexcept KeyboardInterrupt: print('across all')")
	finished := make(chan jupyterAnswer, 1)
	go func() { // reads all the while, as clients do: the server pings
		defer close(finished)
		finished <- busy.answer(cell, "")
	}()
	pool := &templates{c, named, map[int]time.Time{}}
	sse, streamable := dialMCP(t, c, "sse"), dialMCP(t, c, "http")

	another := "}\nhttp://:" + port + " {\n bind 127.0.0.1\n respond taken" // ends the global options, and is closed in their place
	refusals := []struct{ directive, site, global, want string }{
		{directive, "", another, "address already in use"},
		{directive, "handle /other/* {\n python_sandbox {\n python /nonexistent/python3\n }\n }", "", "/nonexistent/python3"},
		{strings.Replace(directive, "idle 1", "idle 2", 1), "", another, "address already in use"}, // with another pool
		{"jupyter {\n token other\n }", "reverse_proxy 127.0.0.1:1 {\n transport http {\n tls_trusted_ca_certs /nonexistent/ca.pem\n }\n }", "", "/nonexistent/ca.pem"},
	}
	for round := range 10 {
		accepted := logFile(fmt.Sprintf("accepted-%d", round))
		c.o.global = sandboxLog(accepted)
		before := children(t, c.pid())
		c.reload(directive, fmt.Sprintf("header X-Round %d", round))
		if now := children(t, c.pid()); !slices.Equal(before, now) {
			t.Errorf("round %d: templates were %v, are %v", round, before, now)
		}
		pool.expectLogIn(accepted, round < 6 && round%2 == 0, sse, streamable)
		kernel.expect("x, open('kept').read()", "ok (1, 'a file')")

		r := refusals[round%len(refusals)]
		refused := logFile(fmt.Sprintf("refused-%d", round))
		c.o.global = sandboxLog(refused) + "\n" + r.global
		before = children(t, c.pid())
		c.refuseReload(r.directive, r.site, r.want)
		if now := children(t, c.pid()); !slices.Equal(before, now) {
			t.Errorf("round %d, refused: templates were %v, are %v", round, before, now)
		}
		pool.expectLogIn(accepted, round < 6 && round%2 == 1, sse, streamable)
		kernel.expect("x, open('kept').read()", "ok (1, 'a file')")
		if n := logged(t, refused, "executed") + logged(t, refused, "template ended"); n > 0 {
			t.Errorf("round %d: the log of a refused configuration has %d lines of the one that serves", round, n)
		}
	}
	// The cell, which one reload would have let run for 30 s, has run for a minute and more when it is told to end.
	time.Sleep(time.Until(began.Add(time.Minute)))
	busy.request("POST", "/interrupt")
	busy.check("the cell", <-finished, `ok out "across all\n"`)
	busy.expect("'after', time.sleep(0)", "ok ('after', None)")
	if n := c.listKernels(); n != 2 {
		t.Errorf("there are %d kernels", n)
	}
}

// expectLogIn has each session log something, and the pool if asked for, and expects it in a file.
func (ts *templates) expectLogIn(file string, ofPool bool, sessions ...*mcpSession) {
	ts.Helper()
	calls, ended := logged(ts, file, "executed"), logged(ts, file, "template ended")
	for _, s := range sessions {
		if got := s.print("print('after')"); got != "after\n" {
			ts.Errorf("after a reload %s printed %q", s.transport, got)
		}
	}
	if ofPool {
		ts.end()
	}
	eventually(ts, wholeWithin, "the lines in "+filepath.Base(file), func() bool {
		return logged(ts, file, "executed") >= calls+len(sessions) && (!ofPool || logged(ts, file, "template ended") > ended)
	})
}
