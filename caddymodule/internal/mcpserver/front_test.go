package mcpserver

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// mcp-go's SSE transport by itself lets calls run on when the client is gone.
func TestMCPClientGoneEndsItsCalls(t *testing.T) {
	for _, transport := range []string{"sse", "http"} {
		t.Run(transport, func(t *testing.T) {
			b := newBench(t, &fakeExecutor{}, Options{})
			c := b.dial(transport)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = c.CallTool(ctx, callArgs(map[string]any{"code": "block"}))
			}()
			b.running(1)
			if transport == "sse" {
				_ = c.Close()
			}
			cancel()
			b.running(0)
			<-done
		})
	}
}

func TestMCPDeleteEndsTheSessionAndItsCalls(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	id := b.initialize()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.post("/mcp", id, callJSON(7, `{"code":"block"}`))
	}()
	b.running(1)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodDelete, b.url+"/mcp", http.NoBody)
	req.Header.Set("Mcp-Session-Id", id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	b.running(0)
	<-done
	if status, _, _ := b.post("/mcp", id, callJSON(8, `{"code":"x"}`)); status != 404 {
		t.Errorf("a call in an ended session: %d", status)
	}
}

// Clients choose their request IDs, so two may use the same one: a cancellation holds within its session only.
func TestMCPCancelReachesOnlyItsOwnSession(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	id := b.initialize()
	var wg sync.WaitGroup
	wg.Go(func() { b.post("/mcp", id, callJSON(7, `{"code":"block"}`)) })
	wg.Go(func() { b.post("/mcp", "", callJSON(7, `{"code":"sleep 500ms"}`)) })
	b.running(2)
	cancelled := `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`
	if status, _, _ := b.post("/mcp", "", cancelled); status != 202 {
		t.Errorf("a stranger's cancel: %d", status)
	}
	b.post("/mcp", b.initialize(), cancelled)
	if _, running := b.ex.counts(); running != 2 {
		t.Fatal("a stranger's cancel ended a call")
	}
	b.post("/mcp", id, cancelled)
	b.running(0)
	wg.Wait()
}

func TestMCPDirectCallLeavesNoSession(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	for i := range 50 {
		if status, body, header := b.post("/mcp", "", callJSON(i, `{"code":"direct"}`)); status != 200 || !strings.Contains(body, "direct") || header.Get("Mcp-Session-Id") != "" {
			t.Fatalf("%d %s %v", status, body, header)
		}
	}
	if n := len(b.front.sessions.open); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestMCPRefusals(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{Bodies: edge.NewBodies(1000, 10_000, 0)})
	for _, c := range []struct {
		method, path, kind, session, body string
		status                            int
		allow                             string
	}{
		{"PUT", "/mcp", "application/json", "", "{}", 405, "GET, POST, DELETE"},
		{"HEAD", "/mcp", "", "", "", 405, "GET, POST, DELETE"},
		{"POST", "/mcp/sse", "application/json", "", "{}", 405, "GET"},
		{"GET", "/mcp/message", "", "", "", 405, "POST"},
		{"GET", "/mcp/other", "", "", "", 404, ""},
		{"POST", "/mcp", "text/plain", "", callJSON(1, `{"code":"x"}`), 415, ""},
		{"POST", "/mcp", "", "", callJSON(1, `{"code":"x"}`), 415, ""},
		{"POST", "/mcp", "application/json", "", strings.Repeat(" ", 1001), 413, ""},
		{"POST", "/mcp", "application/json", "", "{", 400, ""},
		{"POST", "/mcp", "application/json; charset=utf-8", "anon-guess", callJSON(1, `{"code":"x"}`), 404, ""},
		{"GET", "/mcp", "", "", "", 400, ""},
		{"GET", "/mcp", "", "mcp-guess", "", 404, ""},
		{"DELETE", "/mcp", "", "mcp-guess", "", 404, ""},
		{"POST", "/mcp/message?sessionId=sse-guess", "application/json", "", "{}", 404, ""},
		{"POST", "/mcp", "application/json", "", strings.Repeat("[", 900), 400, ""},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, b.url+c.path, strings.NewReader(c.body))
		if c.kind != "" {
			req.Header.Set("Content-Type", c.kind)
		}
		if c.session != "" {
			req.Header.Set("Mcp-Session-Id", c.session)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s %q: %d, Allow %q: %s", c.method, c.path, c.kind, resp.StatusCode, resp.Header.Get("Allow"), body)
		}
	}
	if started, _ := b.ex.counts(); started != 0 {
		t.Error("a refused message ran code")
	}
}

// An event stream has no "Access-Control-Allow-Origin: *", is kept alive by comments, and holds no U+0085, which some clients take for
// the end of a line.
func TestMCPEventStream(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{keepAlive: 20 * time.Millisecond})
	header, lines, _ := b.stream("/mcp/sse", "")
	if header.Get(corsHeader) != "" || header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("header: %v", header)
	}
	endpoint := next(t, lines, "data: ")
	if !strings.HasPrefix(endpoint, "/mcp/message?sessionId=sse-") {
		t.Fatalf("endpoint %q", endpoint)
	}
	next(t, lines, ": keep-alive")
	if status, body, _ := b.post(endpoint, "", callJSON(1, `{"code":"a\u0085b\u2028c"}`)); status != 202 {
		t.Fatal(status, body)
	}
	data := next(t, lines, "data: ")
	if strings.ContainsAny(data, "\u0085\u2028") || !strings.Contains(data, `a\u0085b\u2028c`) {
		t.Errorf("data: %q", data)
	}
	// A client must not be offered a protocol revision that has no SSE transport.
	b.post(endpoint, "", `{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":"2026-07-28","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	if data = next(t, lines, "data: "); !strings.Contains(data, `"protocolVersion":"2025-11-25"`) {
		t.Errorf("initialize: %s", data)
	}
	id := b.initialize()
	_, listen, _ := b.stream("/mcp", id)
	next(t, listen, ": keep-alive")
}

// handle_path cuts a prefix off the path, and the client must be told the path that it knows.
func TestMCPEndpointIsUnderTheOriginalPath(t *testing.T) {
	front := New(&fakeExecutor{}, Options{})
	rs := edge.Routes{}
	front.AddTo(rs)
	defer front.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, *r)
		cut := r.Clone(ctx)
		cut.URL.Path = strings.TrimPrefix(r.URL.Path, "/team/a")
		cut.URL.RawPath = ""
		rs.Serve(w, cut, zap.NewNop())
	}))
	defer srv.Close()
	b := bench{t, front, nil, srv.URL}
	_, lines, stop := b.stream("/team/a/mcp/sse", "")
	defer stop()
	if got := next(t, lines, "data: "); !strings.HasPrefix(got, "/team/a/mcp/message?") {
		t.Error(got)
	}
}

func TestMCPSessionsAreBoundedAndSwept(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{maxSessions: 3, maxStreams: 1, sessionTTL: 200 * time.Millisecond})
	busy := b.initialize()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.post("/mcp", busy, callJSON(1, `{"code":"sleep 800ms"}`))
	}()
	b.running(1)
	b.initialize()
	b.initialize()
	b.initialize() // in the place of an idle one
	if n := b.front.sessions.count(); n != 3 {
		t.Errorf("%d sessions are open, with a bound of 3", n)
	}
	// The idle sessions expire. The one with a call in progress stays, although the call takes longer than the TTL.
	eventually(t, "sweep", func() bool {
		return b.front.sessions.count() == 1
	})
	<-done
	if status, _, _ := b.post("/mcp", busy, callJSON(2, `{"code":"x"}`)); status != 200 {
		t.Errorf("the busy session was swept: %d", status)
	}
}

func TestMCPCloseDeliversWhatRunsAndEndsStreams(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	_, lines, _ := b.stream("/mcp/sse", "")
	b.post(next(t, lines, "data: "), "", callJSON(1, `{"code":"sleep 200ms"}`))
	b.running(1)
	b.front.Close()
	b.front.Close()
	if data := next(t, lines, "data: "); !strings.Contains(data, "sleep 200ms") {
		t.Error(data)
	}
	eventually(t, "end of the stream", func() bool {
		select {
		case _, open := <-lines:
			return !open
		default:
			return false
		}
	})
	if resp, err := http.Get(b.url + "/mcp/sse"); err != nil || resp.StatusCode != 503 {
		t.Errorf("a stream after Close: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

// Clients seldom end their sessions. When ten thousand abandoned ones have expired, their memory is free again.
func TestMCPAbandonedSessionsGiveTheirMemoryBack(t *testing.T) {
	const many = 10_000
	held := func() uint64 {
		goruntime.GC()
		goruntime.GC() // frees what finalizers have released after the first
		var m goruntime.MemStats
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b := newBench(t, &fakeExecutor{}, Options{maxSessions: many + 1, sessionTTL: 20 * time.Second})
	b.initialize()
	before := held()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range many / 4 {
				b.initialize()
			}
		})
	}
	clients.Wait()
	full := held()
	for _, id := range b.front.sessions.expire(0) { // as sweep does once they have been idle for the TTL
		b.front.forget(id)
	}
	b.front.sessions.mu.Lock()
	left := len(b.front.sessions.open)
	b.front.sessions.mu.Unlock()
	if left != 0 {
		t.Errorf("%d sessions are left", left)
	}
	after := held()
	t.Logf("%d KiB before, %d with them, %d after", before>>10, full>>10, after>>10)
	if after > before+(full-before)/10+1<<20 {
		t.Errorf("%d KiB before, %d with them, %d after", before>>10, full>>10, after>>10)
	}
}
