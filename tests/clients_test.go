package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const needsClients = "the Python clients are not installed: `make test` installs tests/requirements.txt, or set SANDBOX_TEST_PYTHON"

// The official Python SDK, over both transports.
func TestPythonSDK(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	for transport, url := range map[string]string{"sse": c.url + "/mcp/sse", "streamable": c.url + "/mcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, clientPython, "clients/sdk.py", transport, url).CombinedOutput()
			if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
				t.Errorf("%v\n%s", err, tail(string(out), 4000))
			}
		})
	}
}

// mcpo is what Open WebUI speaks to: it turns the tools into an OpenAPI service.
func TestMCPO(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	program := filepath.Join(filepath.Dir(clientPython), "mcpo")
	if _, err := os.Stat(program); err != nil {
		need(t, false, needsClients)
	}
	c := startCaddy(t, caddyOptions{})
	config := filepath.Join(t.TempDir(), "config.json")
	text := fmt.Sprintf(`{"mcpServers": {"sandbox": {"type": "sse", "url": "%s/mcp/sse"}}}`, c.url)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(freeAddr(t), ":")
	base := "http://127.0.0.1:" + port + "/sandbox"
	log := &lockedBuffer{}
	mcpo := exec.Command(program, "--config", config, "--host", "127.0.0.1", "--port", port)
	mcpo.Stdout, mcpo.Stderr = log, log
	if err := mcpo.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = mcpo.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = mcpo.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = mcpo.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("log of mcpo:\n%s", tail(log.String(), 4000))
		}
	})

	var document struct {
		Info  struct{ Title, Description string }
		Paths map[string]struct {
			Post struct{ Summary, Description string }
		}
	}
	eventually(t, time.Minute, "mcpo lists the tool", func() bool {
		select {
		case <-exited:
			t.Fatal("mcpo ended")
		default:
		}
		resp, err := http.Get(base + "/openapi.json")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return json.NewDecoder(resp.Body).Decode(&document) == nil && document.Paths["/execute_python"].Post.Description != ""
	})
	if !strings.Contains(document.Info.Description, "execute_python") {
		t.Errorf("the instructions have not arrived: %+v", document.Info)
	}
	callTool := func(tool, body string) (int, map[string]any) {
		t.Helper()
		resp, err := http.Post(base+"/"+tool, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var buf bytes.Buffer
		var got map[string]any
		if err := json.NewDecoder(io.TeeReader(resp.Body, &buf)).Decode(&got); err != nil {
			t.Fatalf("%d %s %v", resp.StatusCode, buf.String(), err)
		}
		return resp.StatusCode, got
	}
	call := func(body string) (int, map[string]any) {
		t.Helper()
		return callTool("execute_python", body)
	}
	if code, got := callTool("pip_install", `{"package": "os"}`); code != 200 || got["status"] != "blocked" || !strings.Contains(fmt.Sprint(got["message"]), "standard library") {
		t.Errorf("an install that policy forbids: %d %v", code, got)
	}
	if code, got := call(`{"code": "print('Hello, <World>!')\nprint(2 + 2)"}`); code != 200 || got["stdout"] != "Hello, <World>!\n4\n" || got["success"] != true {
		t.Errorf("%d %v", code, got)
	}
	if code, got := call(`{"code": "print(input()[::-1])", "stdin": "abc", "timeout": 5}`); code != 200 || got["stdout"] != "cba\n" {
		t.Errorf("with all arguments: %d %v", code, got)
	}
	// What the code did wrong arrives whole.
	if code, got := call(`{"code": "1/0"}`); code != 200 || got["exit_code"] != 1.0 || !strings.Contains(got["stderr"].(string), "ZeroDivisionError") {
		t.Errorf("a failing program: %d %v", code, got)
	}
	// U+0085 and U+2028 end lines for Python; they must not end an event.
	if code, got := call(`{"code": "print('a\u0085b\u2028c\\x00d', '\ud83d\ude00')"}`); code != 200 || got["stdout"] != "a\u0085b\u2028c\x00d \U0001F600\n" {
		t.Errorf("unusual characters: %d %q", code, got)
	}
	if code, got := call(`{"code": "x", "timeout": 121}`); code != 500 || !strings.Contains(fmt.Sprint(got), "up to 120") {
		t.Errorf("a refused request: %d %v", code, got)
	}
	if code, got := call(`{"code": "print('still here')"}`); code != 200 || got["stdout"] != "still here\n" {
		t.Errorf("after all that: %d %v", code, got)
	}
}
