package tests

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Open WebUI's requests and the official client, without a token and with one, behind a prefix and without.
func TestJupyterClients(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	settings := "\npython " + clientPython + "\nlimits {\n execute_timeout " // it has matplotlib
	c := startCaddy(t, caddyOptions{
		directive: "jupyter on" + settings + "60s\n }",
		site:      "handle_path /tools/py/* {\n python_sandbox {\n jupyter {\n token s3cret\n }" + settings + "5s\n }\n }\n }",
	})
	for name, args := range map[string][]string{"plain": {c.url + "/jupyter", "", "figures"}, "prefix": {c.url + "/tools/py/jupyter", "s3cret", "timeout"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, clientPython, append([]string{"clients/jupyter.py"}, args...)...).CombinedOutput()
			if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
				t.Errorf("%v\n%s", err, tail(string(out), 4000))
			}
		})
	}
}

func TestJupyterIsOffByDefault(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	resp, err := c.client.Get(c.url + "/jupyter/api")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusNotFound || resp.Header.Get("Content-Type") == "application/problem+json" {
		t.Errorf("got %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

// startCell starts a kernel and code in it, and returns when the code has printed a line.
func startCell(c *caddy, code string) *jupyterKernel {
	c.Helper()
	k := c.newKernel()
	k.begin(code)
	return k
}

// listKernels counts the kernels of a site.
func (c *caddy) listKernels() int {
	c.Helper()
	resp, err := c.client.Get(c.url + "/jupyter/api/kernels")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var listed []struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&listed); err != nil {
		c.Fatal(resp.Status, err)
	}
	return len(listed)
}

// awaitJupyter reads until a message holds what is awaited.
func awaitJupyter(t testing.TB, conn *websocket.Conn, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("before %s came: %v", what, err)
		}
		if strings.Contains(string(frame), what) {
			return
		}
	}
}

// expectGoingAway reads until the server ends the connection, which it must do with a word.
func expectGoingAway(t testing.TB, conn *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			if e, ok := errors.AsType[websocket.CloseError](err); !ok || e.Code != websocket.StatusGoingAway || e.Reason == "" {
				t.Errorf("got %v", err)
			}
			return
		}
	}
}

// A reload that changes what kernels depend on lets cells end, and then ends the kernels.
func TestJupyterReloadLetsCellsEnd(t *testing.T) {
	t.Parallel()
	for name, changed := range map[string]string{
		"of the pool": "jupyter on\nlimits {\n output 500\n }", "of jupyter": "jupyter {\n token other\n }", "off": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCaddy(t, caddyOptions{directive: "jupyter on"})
			k := startCell(c, "import time\nprint('running', flush=True)\ntime.sleep(1.5)\nprint('across')")
			c.reload(changed, "header X-Test 1")
			awaitJupyter(t, k.conn, `"text":"across\n"`)
			expectGoingAway(t, k.conn)
		})
	}
}

// Kernels belong to the site in which they were started, also when a reload puts another site in front of it: whoever is let in
// there must not find them. Both sites have one pool and the same settings.
func TestJupyterReloadKeepsKernelsInTheirSite(t *testing.T) {
	t.Parallel()
	handle := func(matcher string) string {
		return "@site " + matcher + "\nhandle @site {\n uri strip_prefix /a\n uri strip_prefix /b\n python_sandbox {\n jupyter on\n }\n }\n"
	}
	other := func(matcher string) string { return strings.ReplaceAll(handle(matcher), "@site", "@other") }
	for name, matchers := range map[string][2]string{
		"paths": {"path /a/*", "path /b/*"}, "what is excluded": {"not path /b/*", "not path /a/*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCaddy(t, caddyOptions{site: handle(matchers[0])})
			at := func(prefix string) *caddy {
				there := *c
				there.url += prefix
				return &there
			}
			k := at("/a").newKernel()
			k.expect("x = 1", "ok")
			c.reload("", other(matchers[1])+handle(matchers[0])) // the new site comes first
			for prefix, want := range map[string]int{"/a": 1, "/b": 0} {
				if got := at(prefix).listKernels(); got != want {
					t.Errorf("%s has %d kernels, want %d", prefix, got, want)
				}
			}
			k.expect("x", "ok 1")
		})
	}
}

func TestJupyterExitEndsCells(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	k := startCell(c, "import time\nprint('running', flush=True)\ntime.sleep(25)")
	began := time.Now()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	expectGoingAway(t, k.conn)
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		t.Error("Caddy waits for the cell")
	}
	t.Logf("ended after %s", time.Since(began))
}

// The process of a kernel that runs nothing holds up neither a reload nor the end.
func TestJupyterIdleKernelsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	k := c.newKernel()
	k.expect("x = 1", "ok")
	began := time.Now()
	c.reload("jupyter on\nlimits {\n output 500\n }", "") // another pool
	expectGoingAway(t, k.conn)
	c.waitHealth(10*time.Second, "no worker at work", func(h health) bool { return h.Workers["leased"] == 0 })
	expectWithin(t, 5*time.Second, began, time.Since(began), "the reload")
	k = c.newKernel()
	k.expect("x = 1", "ok")
	began = time.Now()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	expectGoingAway(t, k.conn)
	<-c.exited
	expectWithin(t, 5*time.Second, began, time.Since(began), "the end")
}

// Whoever goes has the cell interrupted, and finds the names when he comes back; the process goes with the kernel.
func TestJupyterClientsThatGo(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on\nworkers {\n max 2\n acquire_timeout 200ms\n }"})
	k := startCell(c, "x = 1\nprint('running', flush=True)\nwhile True: pass")
	_ = k.conn.CloseNow()
	eventually(t, 10*time.Second, "the cell ends", func() bool {
		resp, err := c.client.Get(c.url + "/jupyter/api/kernels/" + k.id)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var model struct {
			State string `json:"execution_state"`
		}
		return json.NewDecoder(resp.Body).Decode(&model) == nil && model.State == "idle"
	})
	k.connect()
	k.expect("x", "ok 1")
	if a := c.run("print(1)"); a.Stdout != "1\n" {
		t.Errorf("beside a kernel: %+v", a)
	}
	other := c.newKernel()
	other.expect("1", "SandboxError: 1 kernels have a process already")
	_ = k.conn.CloseNow()
	eventually(t, 10*time.Second, "the other has a process", func() bool { return other.cell("y = 1").status == "ok" })
	k.connect()
	k.expect("1", "SandboxError: 1 kernels have a process already")
	other.begin("print('running', flush=True)\nwhile True: pass")
	other.request("DELETE", "")
	c.waitHealth(time.Second, "no worker at work", func(h health) bool { return h.Workers["leased"] == 0 })
	k.expect("x", "the last one was ended to make room for another kernel, "+gone, "NameError")
}
