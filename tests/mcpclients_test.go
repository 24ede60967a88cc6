package tests

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientsDirective lets the clients of these tests do without a network, see long output, and run side by side.
const clientsDirective = `workers {
	max 48
}
limits {
	output 6000000
}
packages {
	block forbidden-package
	rate 1000 1m
}`

// typescript are the ways in of the official SDKs for TypeScript, and of mcp-remote, by which Claude Desktop comes.
var typescript = [][]string{
	{"v1", "sse"}, {"v1", "http"}, {"v2", "sse"}, {"v2", "http"}, {"v2-auto", "sse"}, {"v2-auto", "http"},
	{"v1", "remote-sse"}, {"v1", "remote-http"},
}

// program is one that speaks to a server and prints ok at the end.
type program struct {
	name string
	cmd  *exec.Cmd
}

func sdkClient(ctx context.Context, home, site string, way []string, mode ...string) program {
	args := append(append([]string{"sdk.mjs"}, way...), site)
	return program{strings.Join(append(way, mode...), " "), node(ctx, home, append(args, mode...)...)}
}

// sdk2Client is version 2 of the Python SDK.
func sdk2Client(t testing.TB, ctx context.Context, transport, site string) program {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join(filepath.Dir(filepath.Dir(clientPython)), "mcp2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		need(t, false, needsClients)
	}
	cmd := exec.CommandContext(ctx, clientPython, "clients/sdk2.py", transport, site)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules)
	return program{"Python 2 " + transport, cmd}
}

// check runs it to its end.
func (p program) check(t testing.TB) {
	out, err := p.cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
		t.Errorf("%s: %v\n%s", p.name, err, tail(string(out), 3000))
	}
}

func checkAll(t testing.TB, programs []program) {
	var wg sync.WaitGroup
	for _, p := range programs {
		wg.Go(func() { p.check(t) })
	}
	wg.Wait()
}

func TestMCPClients(t *testing.T) {
	t.Parallel()
	needNodeClients(t)
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	home := t.TempDir()
	var all []program
	for _, way := range typescript {
		all = append(all, sdkClient(ctx, home, c.url, way))
	}
	for _, transport := range []string{"sse", "legacy", "auto"} {
		all = append(all, sdk2Client(t, ctx, transport, c.url))
	}
	checkAll(t, all)
	// One after the other, since each looks whether it alone has given its worker back.
	for _, way := range typescript {
		sdkClient(ctx, home, c.url, way, "cancel").check(t)
	}
}

// A reload in the middle of a call delivers its result, and the next call works.
func TestMCPClientsAcrossAReload(t *testing.T) {
	t.Parallel()
	needNodeClients(t)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	home := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []program
		for _, way := range typescript {
			all = append(all, sdkClient(ctx, home, c.url, way, "across"))
		}
		checkAll(t, all)
	}()
	c.waitHealth(time.Minute, "all clients at work", leased(len(typescript)))
	c.reload(c.o.directive, "header X-Test 1")
	<-done
	if resp, err := http.Get(c.url + "/health"); err != nil || resp.Header.Get("X-Test") != "1" {
		t.Errorf("the reload has not taken: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

// A call may last longer than the minute that clients and proxies give a silent request.
func TestMCPCallsLongerThanAMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("this takes 70 s")
	}
	needNodeClients(t)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	home := t.TempDir()
	done := make(chan struct{})
	var all []program
	for _, way := range typescript[:6] {
		all = append(all, sdkClient(ctx, home, c.url, way, "long"))
	}
	// They begin before the tests that run in parallel do, and would otherwise keep one of those waiting.
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		wg.Go(func() { checkAll(t, all) })
		wg.Go(func() { checkFirstByte(t, c) })
		wg.Wait()
	}()
	t.Cleanup(func() { <-done })
	c.waitHealth(time.Minute, "all at work", leased(len(all)+1)) // from now on they cost the others nothing
	t.Parallel()
	<-done
}

// checkFirstByte makes a long call that wants no progress. Its answer begins in time all the same.
func checkFirstByte(t testing.TB, c *caddy) {
	w := &wire{TB: t, c: c, path: "/mcp"}
	begin := time.Now()
	resp, err := (&http.Client{}).Do(w.request(toolCall(1, "execute_python", "",
		map[string]any{"code": "import time; time.sleep(62); print('at last')", "timeout": 100})))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	first, last, longest := time.Since(begin), time.Now(), time.Duration(0)
	var body strings.Builder
	buf := make([]byte, 1<<16)
	for {
		n, err := resp.Body.Read(buf)
		longest, last = max(longest, time.Since(last)), time.Now()
		body.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	if messages := events(body.String()); first > 25*time.Second || longest > 25*time.Second || len(messages) != 1 || !strings.Contains(messages[0], `at last\n`) {
		t.Errorf("the first byte came after %s, and the longest silence was %s: %s", first, longest, body.String())
	}
}

func TestInspector(t *testing.T) {
	t.Parallel()
	needNodeClients(t)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	home := t.TempDir()
	inspect := func(args ...string) (string, int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := node(ctx, home, append([]string{"node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js", "--cli"}, args...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	for name, way := range map[string][]string{
		"sse":    {c.url + "/mcp/sse", "--transport", "sse"},
		"http":   {c.url + "/mcp", "--transport", "http"},
		"modern": {c.url + "/mcp", "--transport", "http", "--protocol-era", "modern"},
	} {
		t.Run(name, func(t *testing.T) {
			with := func(args ...string) []string { return append(append([]string{}, way...), args...) }
			for _, call := range []struct {
				args []string
				code int // 5 is a tool's own error
				says string
			}{
				{[]string{"--method", "tools/list", "--strict"}, 0, `"pip_install"`},
				{[]string{"--method", "tools/call", "--tool-name", "execute_python", "--tool-arg", "code=print(6*7)", "timeout=5"}, 0, `42\n`},
				{[]string{"--method", "tools/call", "--tool-name", "execute_python", "--tool-arg", "code=1/0"}, 0, "ZeroDivisionError"},
				{[]string{"--method", "tools/call", "--tool-name", "execute_python", "--tool-arg", "code=x", "timeout=121"}, 5, "up to 120"},
				{[]string{"--method", "tools/call", "--tool-name", "pip_install", "--tool-arg", "package=forbidden-package"}, 0, "blocked"},
			} {
				if out, code := inspect(with(call.args...)...); code != call.code || !strings.Contains(out, call.says) {
					t.Errorf("%v: exit code %d\n%s", call.args, code, tail(out, 3000))
				}
			}
			out, code := inspect(with("--method", "tools/call", "--tool-name", "execute_python", "--tool-arg", "code=print(1)",
				"--load", "--load-requests", "500", "--load-concurrency", "20")...)
			if code != 0 || !strings.Contains(out, `"ok": 500,`) || !strings.Contains(out, `"errors": 0,`) {
				t.Errorf("500 calls, 20 at once: exit code %d\n%s", code, tail(out, 3000))
			}
		})
	}
}
