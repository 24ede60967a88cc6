package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// fakeRunner stands for a pool: it answers with what it was asked, or fails with err.
type fakeRunner struct {
	err  error
	last atomic.Pointer[pool.Request]
	runs atomic.Int64
}

func (f *fakeRunner) Execute(ctx context.Context, req pool.Request) (pool.Result, error) {
	f.runs.Add(1)
	f.last.Store(&req)
	switch req.Code {
	case "panic":
		panic("a bug with words of ours")
	case "block":
		<-ctx.Done()
		return pool.Result{}, context.Cause(ctx)
	}
	return pool.Result{Stdout: req.Stdin, Status: pool.StatusOK, ExecutionTime: 1500 * time.Microsecond}, f.err
}

const testMaxBody = 3 << 20

// newSite serves the HTTP operations on a loopback listener, with 418 for whatever is not ours.
func newSite(t *testing.T, runner *fakeRunner, stat pool.Stat) *httptest.Server {
	t.Helper()
	state := &operation.Health{Stat: func() pool.Stat { return stat }, Started: time.Now().Add(-time.Hour)}
	rs := edge.Routes{}
	err := AddOperations(rs,
		&operation.Executions{Pool: runner, DefaultTimeout: 30 * time.Second, MaxTimeout: 120 * time.Second, Log: zap.NewNop()},
		nil, Options{DefaultTimeout: 30 * time.Second, MaxTimeout: 120 * time.Second, Bodies: edge.NewBodies(testMaxBody, 2*testMaxBody, 0),
			Health: state.Look, InFlight: new(atomic.Int64)})
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"GET /mcp", "POST /mcp", "DELETE /mcp", "GET /mcp/sse", "POST /mcp/message"} {
		method, path, _ := strings.Cut(route, " ")
		rs.AddSensitive(method, path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rs.Serve(w, r, zap.NewNop(), "listed.example") {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(site.Close)
	return site
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{Ready: true})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", http.StatusTeapot, ""},
		{"POST", "/execute/", http.StatusTeapot, ""},
		{"POST", "/app/execute", http.StatusTeapot, ""},
		{"GET", "/docs", http.StatusTeapot, ""},
		{"GET", "/openapi.yaml", http.StatusTeapot, ""},
		{"GET", "/execute", 405, "POST"},
		{"PUT", "/execute", 405, "POST"},
		{"OPTIONS", "/execute", 405, "POST"},
		{"BREW", "/execute", 405, "POST"},
		{"POST", "/health", 405, "GET, HEAD"},
		{"DELETE", "/openapi.json", 405, "GET, HEAD"},
		{"PUT", "/mcp", 405, "GET, POST, DELETE"},
		{"POST", "/mcp/sse", 405, "GET"},
		{"GET", "/mcp/message", 405, "POST"},
		{"GET", "/health", 200, ""},
		{"HEAD", "/health", 200, ""},
		{"GET", "/openapi.json", 200, ""},
		{"POST", "/mcp", 204, ""},
		{"GET", "/mcp/sse", 204, ""},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			t.Parallel()
			status, body, header := edgetest.Send(t, c.method, site.URL+c.path, nil, nil)
			if status != c.status || header.Get("Allow") != c.allow {
				t.Errorf("got %d, Allow %q", status, header.Get("Allow"))
			}
			if status == 405 {
				edgetest.CheckProblem(t, status, body, header)
			}
		})
	}
}

func TestErrorsOfThePool(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err        error
		status     int
		retryAfter string
		want       string
	}{
		{pool.ErrQueueFull, 503, "1", "try again"},
		{pool.ErrAcquireTimeout, 503, "1", "try again"},
		{pool.ErrClosed, 503, "1", "try again"},
		{fmt.Errorf("%w: too many open files", pool.ErrNotStarted), 503, "1", "nothing of it ran: try again"},
		{pool.ErrWorkerLost, 503, "1", "try again"},
		{fmt.Errorf("acquiring: %w", pool.ErrQueueFull), 503, "1", "try again"},
		{errors.New("secret words"), 500, "", "the sandbox failed on its side"},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			t.Parallel()
			site := newSite(t, &fakeRunner{err: c.err}, pool.Stat{})
			status, body, header := edgetest.Send(t, "POST", site.URL+"/execute", strings.NewReader(`{"code":"1"}`), nil)
			if status != c.status || header.Get("Retry-After") != c.retryAfter {
				t.Errorf("got %d, Retry-After %q", status, header.Get("Retry-After"))
			}
			p := edgetest.CheckProblem(t, status, body, header)
			if !strings.Contains(p.Detail, c.want) || strings.Contains(body, "secret") {
				t.Errorf("got %s", body)
			}
		})
	}
}

func TestPanicIsA500WithoutWords(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{})
	for range 2 {
		status, body, header := edgetest.Send(t, "POST", site.URL+"/execute", strings.NewReader(`{"code":"panic"}`), nil)
		if status != 500 || strings.Contains(body, "words of ours") {
			t.Errorf("got %d %s", status, body)
		}
		edgetest.CheckProblem(t, status, body, header)
	}
}

func TestClientGoneEndsTheExecution(t *testing.T) {
	t.Parallel()
	runner := &fakeRunner{}
	site := newSite(t, runner, pool.Stat{})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", site.URL+"/execute", strings.NewReader(`{"code":"block"}`))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for runner.runs.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("answered")
	}
	site.Close() // waits for the handler, which would block for ever
}
