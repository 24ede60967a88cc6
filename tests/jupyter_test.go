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

const jupyterSettings = "\nlimits {\n execute_timeout 5s 10s\n }"

// Open WebUI's requests and the official client, without a token and with one, behind a prefix and without.
func TestJupyterClients(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{
		directive: "jupyter on" + jupyterSettings,
		site:      "handle_path /tools/py/* {\n python_sandbox {\n jupyter {\n token s3cret\n }" + jupyterSettings + "\n }\n }",
	})
	extra := []string{}
	if a := c.run("import importlib.util as u; print(u.find_spec('matplotlib') is not None)"); a.Stdout == "True\n" {
		extra = []string{"matplotlib"}
	} else {
		t.Log("the interpreter has no matplotlib: no figures are drawn")
	}
	for name, args := range map[string][]string{"plain": {c.url + "/jupyter", ""}, "prefix": {c.url + "/tools/py/jupyter", "s3cret"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, clientPython, append(append([]string{"clients/jupyter.py"}, args...), extra...)...).CombinedOutput()
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

// startCell starts a kernel and code in it, and returns the socket when the code has printed a line.
func startCell(c *caddy, code string) *websocket.Conn {
	c.Helper()
	resp, err := c.client.Post(c.url+"/jupyter/api/kernels", "application/json", nil)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var kernel struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&kernel); err != nil {
		c.Fatal(err)
	}
	conn, _, err := websocket.Dial(context.Background(), c.url+"/jupyter/api/kernels/"+kernel.ID+"/channels", nil)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = conn.CloseNow() })
	request := map[string]any{"channel": "shell", "header": map[string]string{"msg_id": "1", "msg_type": "execute_request"},
		"content": map[string]string{"code": code}}
	frame, err := json.Marshal(request)
	if err != nil {
		c.Fatal(err)
	}
	if err := conn.Write(context.Background(), websocket.MessageText, frame); err != nil {
		c.Fatal(err)
	}
	awaitJupyter(c, conn, `"text":"running\n"`)
	return conn
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

func TestJupyterReloadLetsCellsEnd(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	conn := startCell(c, "import time\nprint('running', flush=True)\ntime.sleep(1.5)\nprint('across')")
	c.reload(c.o.directive, "header X-Test 1")
	awaitJupyter(t, conn, `"text":"across\n"`)
	expectGoingAway(t, conn)
}

func TestJupyterExitEndsCells(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	conn := startCell(c, "import time\nprint('running', flush=True)\ntime.sleep(25)")
	began := time.Now()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	expectGoingAway(t, conn)
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		t.Error("Caddy waits for the cell")
	}
	t.Logf("ended after %s", time.Since(began))
}

// Whoever goes frees the worker, whatever the cell does.
func TestJupyterClientGoneFreesItsWorker(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "jupyter on"})
	conn := startCell(c, "print('running', flush=True)\nwhile True: pass")
	c.waitHealth(10*time.Second, "a worker at work", func(h health) bool { return h.Workers["leased"] == 1 })
	_ = conn.CloseNow()
	c.waitHealth(10*time.Second, "no worker at work", func(h health) bool { return h.Workers["leased"] == 0 })
}
