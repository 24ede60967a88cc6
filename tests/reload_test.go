package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reload writes a new configuration and gives it to the running server.
func (c *caddy) reload(directive, site string) {
	c.Helper()
	c.configure(directive, site)
	if out, code := c.outcome("reload", "--config", c.configFile, "--adapter", "caddyfile", "--address", c.admin); code != 0 {
		c.Fatalf("reload: %s", tail(out, 2000))
	}
	// Caddy goes on to close what the old configuration listened on, and its idle connections; a POST that is on its way there
	// is lost.
	eventually(c, wholeWithin, "the listener of the new configuration alone", func() bool { return listeners(c, c.addr) == 1 })
	c.client.CloseIdleConnections()
	closeClients()
}

// closeClients closes the idle connections of the MCP clients of these tests.
func closeClients() { http.DefaultClient.CloseIdleConnections() }

// listeners is how many sockets listen on an address of this machine.
func listeners(t testing.TB, addr string) int { return sockets(t, addr, 1, "0A") }

// sockets counts those of this machine that have a port in a column of /proc/net/tcp, 1 for their own and 2 for the other side's, and
// are in a state (proc_net(5)).
func sockets(t testing.TB, addr string, column int, state string) (n int) {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 3 && strings.HasSuffix(fields[column], fmt.Sprintf(":%04X", number)) && fields[3] == state {
			n++
		}
	}
	return n
}

func TestReloadOfSomethingElseKeepsWorkersAndSessions(t *testing.T) {
	t.Parallel()
	const idle = 3
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 3\n }"})
	session := dialMCP(t, c, "sse")
	streamable := dialMCP(t, c, "http")
	c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(idle) && h.Workers["booting"] == 0 })
	before := descendants(t, c.pid())

	// A program that runs across the reload delivers its result.
	running := make(chan string, 1)
	go func() { running <- session.print("import time; time.sleep(4); print('across')") }()
	c.waitHealth(wholeWithin, "a worker at work and another parked in its place", func(h health) bool {
		return h.Workers["leased"] == 1 && h.Workers["idle"] == idle && h.Workers["booting"] == 0
	})
	atWork := descendants(t, c.pid())
	c.reload(c.o.directive, "header X-Test 1")
	if now := descendants(t, c.pid()); !slices.Equal(atWork, now) {
		t.Errorf("processes were %v, are %v", atWork, now)
	}
	if got := <-running; got != "across\n" {
		t.Errorf("the running call printed %q", got)
	}
	if resp, err := http.Get(c.url + "/health"); err != nil || resp.Header.Get("X-Test") != "1" {
		t.Errorf("the reload has not taken: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	for _, s := range []*mcpSession{session, streamable} {
		if got := s.print("print('after')"); got != "after\n" {
			t.Errorf("after the reload %s printed %q", s.transport, got)
		}
	}
	// The templates are the same ones too.
	kept := children(t, c.pid())
	for _, p := range before {
		if p.parent == c.pid() && !slices.Contains(kept, p) {
			t.Errorf("template %d is gone, left are %v", p.pid, kept)
		}
	}
}

func TestReloadOfLimitsSwapsThePoolWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	c.mustPrint("print(1)", "1\n")
	old := children(t, c.pid())
	c.client.Transport = &http.Transport{DisableKeepAlives: true}

	const clients = 4
	outputs := []string{"300", "200", "400"}
	var served, lost atomic.Int64
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				a, err := c.execute(context.Background(), map[string]any{"code": "print('x' * 150)"})
				// On a reload Caddy opens a second socket and closes the first, and connections that wait there to be accepted
				// are lost: one of each client's per reload at most. That is so for any site of Caddy's, a static one too; no request
				// has begun. Clients connect again.
				if (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) && lost.Add(1) <= int64(clients*len(outputs)) {
					continue
				}
				// 150 characters are within both limits that take turns below.
				if err != nil || a.code != 200 || len(a.Stdout) != 151 {
					t.Errorf("%d %.300s %v", a.code, a.raw, err)
				}
				served.Add(1)
			}
		})
	}
	for _, output := range outputs {
		c.reload("limits {\n output "+output+"\n }", "")
		target := served.Load() + 20
		eventually(t, 20*time.Second, "requests after the reload", func() bool { return served.Load() > target })
	}
	close(quit)
	wg.Wait()
	if a := c.run("print('y' * 1000)"); !a.Truncated || len(a.Stdout) < 400 || len(a.Stdout) > 600 {
		t.Errorf("the new limit is not in force: %d characters", len(a.Stdout))
	}
	eventually(t, 20*time.Second, "the old templates gone", func() bool {
		now := children(t, c.pid())
		return !slices.ContainsFunc(old, func(p process) bool { return slices.Contains(now, p) })
	})
}

// Caddy's grace period is eternal unless configured, and an event stream never ends by itself.
func TestSIGTERMWithOpenStreamsExitsPromptly(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	session := dialMCP(t, c, "sse")
	if got := session.print("print(1)"); got != "1\n" {
		t.Fatal(got)
	}
	dialMCP(t, c, "http")
	below := descendants(t, c.pid())
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.expectExit(5*time.Second, "whose event streams are open")
	for _, p := range living(t, slices.Values(below)) {
		t.Errorf("%+v has survived", p)
	}
	if n := entries(t, c.tmp()); n > 0 {
		t.Errorf("%d files are left in the temporary directory", n)
	}
}

// A program that runs when SIGTERM comes may finish, and its client hears of it.
func TestSIGTERMLetsRunningProgramsFinish(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	session := dialMCP(t, c, "sse")
	type outcome struct {
		a   answer
		err error
	}
	plain, tool := make(chan outcome, 1), make(chan string, 1)
	go func() {
		a, err := c.execute(context.Background(), map[string]any{"code": "import time; time.sleep(1.5); print('done')"})
		plain <- outcome{a, err}
	}()
	go func() { tool <- session.print("import time; time.sleep(1.5); print('done')") }()
	c.waitHealth(wholeWithin, "two at work", leased(2))
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if o := <-plain; o.err != nil || o.a.Stdout != "done\n" {
		t.Errorf("over HTTP: %s %v", o.a.raw, o.err)
	}
	if got := <-tool; got != "done\n" {
		t.Errorf("over MCP: %q", got)
	}
	c.expectExit(10*time.Second, "which has given its last answer")
}
