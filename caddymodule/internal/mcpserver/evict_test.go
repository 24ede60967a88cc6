package mcpserver

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (m *mcpSessions) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.open)
}

// A stranger who initializes without end, or opens streams without end, locks nobody out: neither who comes next, nor who is there.
func TestMCPSessionsWithoutEndLockNobodyOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, &fakeExecutor{}, Options{maxSessions: 8, maxStreams: 4})
	mine := b.initialize()
	if status, _, _ := b.post("/mcp", mine, callJSON(1, `{"code":"x"}`)); status != 200 {
		t.Fatal(status)
	}
	for range 50 {
		b.initialize()
	}
	if status, _, _ := b.post("/mcp", mine, callJSON(2, `{"code":"y"}`)); status != 200 {
		t.Errorf("the session that was there, and had called a tool, answers %d", status)
	}
	if status, _, _ := b.post("/mcp", b.initialize(), callJSON(3, `{"code":"z"}`)); status != 200 {
		t.Errorf("a new session answers %d", status)
	}

	_, lines, stop := b.stream("/mcp/sse", "")
	defer stop()
	endpoint := next(t, lines, "data: ")
	b.post(endpoint, "", callJSON(1, `{"code":"first"}`))
	next(t, lines, "data: ")
	for range 20 {
		_, others, _ := b.stream("/mcp/sse", "")
		next(t, others, "data: ")
	}
	b.post(endpoint, "", callJSON(2, `{"code":"second"}`))
	if data := next(t, lines, "data: "); !strings.Contains(data, "second") {
		t.Error(data)
	}
	eventually(t, "streams within their bound", func() bool { return b.front.streams.Load() <= 4 })
}

// What is in use stays. When all is in use, the next one is told to come back.
func TestMCPSessionsInUseAreNotEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t, &fakeExecutor{}, Options{maxSessions: 2, maxStreams: 1})
	_, lines, stop := b.stream("/mcp/sse", "")
	defer stop()
	endpoint, done := next(t, lines, "data: "), make(chan struct{})
	b.post(endpoint, "", callJSON(1, `{"code":"sleep 700ms"}`))
	session := b.initialize()
	go func() {
		defer close(done)
		if status, _, _ := b.post("/mcp", session, callJSON(1, `{"code":"sleep 700ms"}`)); status != 200 {
			t.Errorf("the session in use answered %d", status)
		}
	}()
	b.running(2)
	for _, path := range []string{"/mcp", "/mcp/sse"} {
		method, body := http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`
		if path == "/mcp/sse" {
			method, body = http.MethodGet, ""
		}
		r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: one too many got %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	<-done
	if data := next(t, lines, "data: "); !strings.Contains(data, "sleep") {
		t.Error(data)
	}
}

// The address with the most sessions loses one, those first that never called a tool, then the one that has been idle for the longest.
func TestMCPEvictionIsFair(t *testing.T) {
	t.Parallel()
	m := newSessions(context.Background(), 100)
	begin := time.Now().Add(-time.Hour)
	open := func(address string, called bool, age time.Duration) string {
		s, ok := m.add(kindStreamable, address)
		if !ok {
			t.Fatal("full")
		}
		s.called, s.lastUsed = called, begin.Add(-age)
		return s.id
	}
	few := open("192.0.2.1", false, 50*time.Minute)
	busy, _ := m.add(kindStreamable, "192.0.2.2")
	release := busy.use()
	stream, _ := m.add(kindSSE, "192.0.2.2")
	var want []string
	for _, of := range []struct {
		called bool
		age    time.Duration
	}{{false, 3 * time.Minute}, {false, 2 * time.Minute}, {true, 9 * time.Minute}, {true, 8 * time.Minute}} {
		want = append(want, open("192.0.2.2", of.called, of.age))
	}
	for i, id := range want {
		if got, ok := m.evict(kindStreamable); !ok || got != id {
			t.Fatalf("the session that goes as number %d is %s, not %s", i+1, got, id)
		}
	}
	if got, ok := m.evict(kindSSE); !ok || got != stream.id {
		t.Errorf("%s %v", got, ok)
	}
	if got, ok := m.evict(kindStreamable); !ok || got != few {
		t.Errorf("%s %v", got, ok)
	}
	if got, ok := m.evict(kindStreamable, kindSSE); ok {
		t.Errorf("%s was in use", got)
	}
	release()
	if got, ok := m.evict(kindStreamable, kindSSE); !ok || got != busy.id {
		t.Errorf("%s %v", got, ok)
	}
}
