package mcpserver

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// fakeExecutor stands for the pool: it answers with the code, or blocks until its context ends when the code is "block".
type fakeExecutor struct {
	fail error

	mu               sync.Mutex
	started, running int
	last             operation.ExecuteInput
}

func (f *fakeExecutor) Execute(ctx context.Context, in operation.ExecuteInput) (operation.ExecuteOutput, error) {
	f.mu.Lock()
	f.started++
	f.running++
	f.last = in
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	switch {
	case f.fail != nil:
		return operation.ExecuteOutput{}, f.fail
	case in.Code == "panic":
		panic("boom")
	case in.Code == "block":
		<-ctx.Done()
		return operation.ExecuteOutput{}, ctx.Err()
	case strings.HasPrefix(in.Code, "sleep "):
		d, err := time.ParseDuration(strings.TrimPrefix(in.Code, "sleep "))
		if err != nil {
			return operation.ExecuteOutput{}, err
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return operation.ExecuteOutput{}, ctx.Err()
		}
	case in.Code == "raise":
		return operation.ExecuteOutput{Stderr: "ValueError", ExitCode: 1, Status: "error"}, nil
	}
	return operation.ExecuteOutput{Stdout: in.Code, Status: "ok", Success: true}, nil
}

func (f *fakeExecutor) counts() (started, running int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started, f.running
}

// plainWriter hides every optional interface, as Caddy's writers do. http.ResponseController reaches the writer by Unwrap.
type plainWriter struct{ w http.ResponseWriter }

func (p plainWriter) Header() http.Header         { return p.w.Header() }
func (p plainWriter) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p plainWriter) WriteHeader(status int)      { p.w.WriteHeader(status) }
func (p plainWriter) Unwrap() http.ResponseWriter { return p.w }

type bench struct {
	*testing.T
	front *Front
	ex    *fakeExecutor
	url   string
}

func newBench(t *testing.T, ex *fakeExecutor, o Options) bench {
	t.Helper()
	o.DefaultTimeout = cmp.Or(o.DefaultTimeout, 30*time.Second)
	o.MaxTimeout = cmp.Or(o.MaxTimeout, 120*time.Second)
	front := New(ex, o)
	rs := edge.Routes{}
	front.AddTo(rs)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rs.Serve(plainWriter{w}, r, zap.NewNop()) {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(front.Close)
	return bench{t, front, ex, srv.URL}
}

// dial connects with mcp-go's client: over SSE when transport is "sse", else over streamable HTTP.
func (b bench) dial(transport string) *client.Client {
	b.Helper()
	var c *client.Client
	var err error
	if transport == "sse" {
		c, err = client.NewSSEMCPClient(b.url + "/mcp/sse")
	} else {
		c, err = client.NewStreamableHttpClient(b.url + "/mcp")
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ctx := context.Background() // an SSE stream lives as long as the context it was started with
	if err := c.Start(ctx); err != nil {
		b.Fatal(err)
	}
	var req mcp.InitializeRequest
	req.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	req.Params.ClientInfo = mcp.Implementation{Name: "test", Version: "1"}
	if _, err := c.Initialize(ctx, req); err != nil {
		b.Fatal(err)
	}
	return c
}

func callArgs(args any) mcp.CallToolRequest {
	var req mcp.CallToolRequest
	req.Params.Name = "execute_python"
	req.Params.Arguments = args
	return req
}

// post sends one message without an MCP client and returns the status, the body and the header of the answer.
func (b bench) post(path, session, body string) (int, string, http.Header) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return resp.StatusCode, string(got), resp.Header
}

func (b bench) initialize() string {
	b.Helper()
	status, body, header := b.post("/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	id := header.Get("Mcp-Session-Id")
	if status != 200 || id == "" {
		b.Fatalf("initialize: %d %s", status, body)
	}
	return id
}

func callJSON(id int, args string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"execute_python","arguments":%s}}`, id, args)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func (b bench) running(n int) {
	b.Helper()
	eventually(b.T, fmt.Sprintf("%d calls running", n), func() bool {
		_, running := b.ex.counts()
		return running == n
	})
}

// stream opens the event stream at path. It returns the header, the lines as they come, and a function that closes the stream.
func (b bench) stream(path, session string) (http.Header, <-chan string, func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, http.NoBody)
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		cancel()
		b.Fatal(resp, err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		buf := make([]byte, 1<<16)
		for rest := ""; ; {
			n, err := resp.Body.Read(buf)
			rest += string(buf[:n])
			for {
				line, after, ok := strings.Cut(rest, "\n")
				if !ok {
					break
				}
				lines <- strings.TrimRight(line, "\r")
				rest = after
			}
			if err != nil {
				return
			}
		}
	}()
	b.Cleanup(cancel)
	return resp.Header, lines, cancel
}

// next skips lines until one begins with prefix, and returns the rest of that line.
func next(t *testing.T, lines <-chan string, prefix string) string {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the stream ended before %q", prefix)
			}
			if rest, found := strings.CutPrefix(line, prefix); found {
				return rest
			}
		case <-timeout:
			t.Fatalf("no %q within 5 s", prefix)
		}
	}
}
