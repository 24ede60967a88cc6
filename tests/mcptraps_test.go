package tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A name that is not this machine's own is refused on a loopback address, whoever sends it, unless the operator lists it or
// trusts the proxy that passed it on.
func TestMCPHosts(t *testing.T) {
	t.Parallel()
	strict := startCaddy(t, caddyOptions{})
	listed := startCaddy(t, caddyOptions{directive: "hosts sandbox example.internal"})
	trusting := startCaddy(t, caddyOptions{global: "servers {\n trusted_proxies static 127.0.0.1/32\n }"})
	for _, h := range []struct {
		c       *caddy
		host    string
		allowed bool
	}{
		{strict, "localhost:1", true},
		{strict, "127.0.0.1", true},
		{strict, "sandbox:8001", false},
		{strict, "evil.example", false},
		{listed, "sandbox:8001", true},
		{listed, "EXAMPLE.internal", true},
		{listed, "evil.example", false},
		{listed, "sandbox.evil.example", false},
		{trusting, "sandbox:8001", true},
	} {
		for _, r := range []struct{ method, path, body string }{
			{"POST", "/mcp", toolCall(1, "execute_python", "", map[string]any{"code": "print(1)"})},
			{"GET", "/mcp/sse", ""},
			{"POST", "/mcp/message?sessionId=guess", "{}"},
		} {
			req, _ := http.NewRequestWithContext(t.Context(), r.method, h.c.url+r.path, strings.NewReader(r.body))
			req.Host = h.host
			req.Header.Set("Content-Type", "application/json")
			resp, err := h.c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if refused := resp.StatusCode == 403; refused == h.allowed {
				t.Errorf("%s %s as %s: %d", r.method, r.path, h.host, resp.StatusCode)
			} else if refused {
				said, _ := io.ReadAll(resp.Body)
				if !strings.Contains(string(said), "hosts in python_sandbox") || !strings.Contains(string(said), "trusted_proxies") {
					t.Errorf("the refusal names no remedy: %s", said)
				}
			}
			_ = resp.Body.Close()
		}
	}
}

// Who reads the access log must not be able to use the sessions that are in it.
func TestMCPSessionsAreNotInTheAccessLog(t *testing.T) {
	t.Parallel()
	dir := sharedDir(t)
	file := filepath.Join(dir, "access.log")
	site := "log {\n output file " + file + "\n }"
	c := startCaddy(t, caddyOptions{directive: "jupyter on", site: site})
	http1, sse := openWire(t, c), openSSEWire(t, c)
	call := toolCall(1, "execute_python", "", map[string]any{"code": "print(1)"})
	if status, body, _ := http1.post(call); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ := sse.post(call); status != 202 {
		t.Errorf("%d %s", status, body)
	}
	sse.next()
	get, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+sse.path+"&other=1", http.NoBody)
	if a, err := c.do(get); err != nil || a.code != 405 {
		t.Errorf("%d %v", a.code, err)
	}
	// What falls through to the rest of the site is in the log all the same.
	for _, near := range []string{strings.Replace(sse.path, "/mcp", "//mcp", 1), strings.Replace(sse.path, "/message", "/messages", 1), "/jupyter?token=" + http1.session} {
		get, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+near, http.NoBody)
		get.Header.Set("Mcp-Session-Id", http1.session)
		if a, err := c.do(get); err != nil || a.code != 404 {
			t.Errorf("%s: %d %v", near, a.code, err)
		}
	}
	c.mustPrint("print(1)", "1\n")

	type line struct {
		Logger, Msg string
		Request     struct {
			Method, URI, Host string
			Headers           map[string][]string
		}
		Status, Size int
		BytesRead    int `json:"bytes_read"`
		Duration     float64
		RespHeaders  map[string][]string `json:"resp_headers"`
	}
	var lines []line
	eventually(t, 10*time.Second, "nine lines in the access log", func() bool {
		raw, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		lines = nil
		for text := range strings.Lines(string(raw)) {
			if strings.Contains(text, http1.session) || strings.Contains(text, strings.TrimPrefix(sse.path, "/mcp/message?sessionId=")) {
				t.Fatalf("a session is in the log: %s", text)
			}
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				return false // half written
			}
			if l.Request.URI != "/health" {
				lines = append(lines, l)
			}
		}
		return len(lines) >= 9
	})
	counts := map[string]int{}
	for _, l := range lines {
		counts[fmt.Sprint(l.Request.Method, " ", l.Request.URI, " ", l.Status)]++
		if !strings.HasPrefix(l.Logger, "http.log.access") || l.Msg != "handled request" || l.Duration <= 0 || l.Request.Host != c.addr {
			t.Errorf("line: %+v", l)
		}
		if l.Request.Method == "POST" && l.Request.URI == "/mcp" && (l.BytesRead == 0 || l.Size == 0) {
			t.Errorf("line: %+v", l)
		}
	}
	for want, n := range map[string]int{
		"POST /mcp 200": 2, "POST /mcp/message?sessionId=REDACTED 202": 2,
		"GET /mcp/message?other=1&sessionId=REDACTED 405": 1, "POST /execute 200": 1,
	} {
		if counts[want] != n {
			t.Errorf("%q is there %d times, not %d: %v", want, counts[want], n, counts)
		}
	}

	// What the operator leaves out stays out, and what the operator asks for is there.
	c.reload("jupyter on", site+"\n@mcp path /mcp*\n log_skip @mcp")
	plain := openWire(t, c)
	c.mustPrint("print('a line behind it')", "a line behind it\n")
	eventually(t, 10*time.Second, "the line behind it", func() bool {
		raw, err := os.ReadFile(file)
		return err == nil && strings.Count(string(raw), `"uri":"/execute"`) == 2
	})
	if raw, err := os.ReadFile(file); err != nil || strings.Count(string(raw), `"method":"POST","host":"`+c.addr+`","uri":"/mcp"`) != 2 {
		t.Errorf("a line that was to be left out is there: %s %v", raw, err)
	}
	_ = plain
}

// A client that posts and never reads is bounded, does not hold up others, and is dropped.
func TestMCPUnreadStream(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{
		directive: "limits {\n output 200000\n }", global: "servers {\n timeouts {\n write_idle 3s\n }\n }"})
	other := dialMCP(t, c, "sse")
	other.print("print(1)")
	base := c.goroutines()

	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	_, _ = fmt.Fprintf(conn, "GET /mcp/sse HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", c.addr)
	deaf := &wire{TB: t, c: c}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			deaf.path = path
			break
		}
	}
	// From here on nothing is read.
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for id := range 400 {
		wg.Go(func() {
			status, _, _ := deaf.post(toolCall(id, "execute_python", "", map[string]any{"code": "print('x' * 100_000)"}))
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	slowest := time.Duration(0)
	for range 10 {
		begin := time.Now()
		if got := other.print("print('unaffected')"); got != "unaffected\n" {
			t.Errorf("another session: %q", got)
		}
		slowest = max(slowest, time.Since(begin))
	}
	wg.Wait()
	t.Logf("statuses %v, slowest call of another session %s", statuses, slowest)
	// Those that wait for a place in the session are answered when it has been dropped.
	if statuses[202] < 128 || statuses[404] == 0 || statuses[202]+statuses[404] != 400 {
		t.Errorf("statuses: %v", statuses)
	}
	eventually(t, 20*time.Second, "the goroutines back to where they were", func() bool {
		c.client.CloseIdleConnections()
		return c.goroutines() <= base+20
	})
	c.waitHealth(wholeWithin, "no worker at work", leased(0))
}

// The server's limits on whole requests are no limits on calls and streams, which have their own.
func TestMCPOutlivesTheServersTimeouts(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{global: "servers {\n timeouts {\n read_body 1s\n write 1s\n }\n }"})
	for _, transport := range []string{"sse", "http", "modern"} {
		s := dialMCP(t, c, transport)
		if got := s.print("import time; time.sleep(2.5); print('done')"); got != "done\n" {
			t.Errorf("%s: %q", transport, got)
		}
	}
}
