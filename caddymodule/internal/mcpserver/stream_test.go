package mcpserver

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// postAs sends one message with the given Accept header.
func (b bench) postAs(accept, session, body string) (string, http.Header) {
	b.Helper()
	req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, b.url+"/mcp", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		b.Errorf("%d %s %v", resp.StatusCode, raw, err)
	}
	return string(raw), resp.Header
}

// A call that takes long is answered on an event stream that begins before the answer is there, if the client accepts event streams.
func TestMCPLongCallsAreKeptAlive(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{keepAlive: 20 * time.Millisecond})
	session := b.initialize()
	const both = "application/json, text/event-stream"
	for _, id := range []string{session, ""} {
		body, header := b.postAs(both, id, callJSON(1, `{"code":"sleep 200ms"}`))
		lead, answer, found := strings.Cut(body, "event: message\ndata: ")
		if header.Get("Content-Type") != edge.EventsType || header.Get("X-Accel-Buffering") != "no" || !found ||
			strings.Count(lead, ": keep-alive\n\n") < 2 || strings.ReplaceAll(lead, ": keep-alive\n\n", "") != "" ||
			!strings.HasPrefix(answer, `{"jsonrpc":"2.0","id":1,"result":`) || !strings.HasSuffix(answer, "}\n\n") {
			t.Errorf("%v %s", header, body)
		}
	}
	for accept, code := range map[string]string{both: "at once", "application/json": "sleep 100ms", "": "sleep 100ms", "*/*": "sleep 100ms"} {
		body, header := b.postAs(accept, session, callJSON(1, fmt.Sprintf(`{"code":%q}`, code)))
		if header.Get("Content-Type") != "application/json" || !strings.HasPrefix(body, `{"jsonrpc":`) {
			t.Errorf("%q: %v %s", accept, header, body)
		}
	}
}

// An event stream is begun by whatever is written first: a keep-alive comment, a notification or the answer. Under the race detector
// this test finds two that begin it at once.
func TestMCPStreamIsBegunOnce(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{keepAlive: time.Millisecond, runNotes: 2 * time.Millisecond})
	session := b.initialize()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 20 {
				id := worker*100 + i
				call := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"sleep %dms"},"_meta":{"progressToken":%d}}}`, id, i%6, id)
				in := session
				if worker%2 == 0 {
					in = ""
				}
				body, header := b.postAs("text/event-stream", in, call)
				answer := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":`, id)
				if strings.Count(body, answer) != 1 || strings.Contains(body[strings.Index(body, answer):], "notifications/progress") && in == "" {
					t.Errorf("%v %s", header, body)
				}
				for line := range strings.Lines(body) {
					if header.Get("Content-Type") != edge.EventsType {
						continue
					}
					if line = strings.TrimSuffix(line, "\n"); line != "" && line != ": keep-alive" && line != "event: message" && !strings.HasPrefix(line, "data: {") {
						t.Errorf("a line of the stream: %s", line)
					}
				}
			}
		})
	}
	wg.Wait()
}

// A client that posts but does not read its stream has to wait, and other clients do not.
func TestMCPUnreadAnswersAreBounded(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	s, ok := b.front.sessions.add(kindSSE, "")
	if !ok {
		t.Fatal("no session")
	}
	for range maxPending {
		if !s.await(t.Context()) {
			t.Fatal("no place")
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, body, _ := b.post("/mcp/message?sessionId="+s.id, "", callJSON(1, `{"code":"x"}`)); status != 404 {
			t.Errorf("a call of a session that has ended: %d %s", status, body)
		}
	})
	// Neither a cancellation in this session nor a call in another one has to wait.
	b.post("/mcp/message?sessionId="+s.id, "", `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
	_, lines, _ := b.stream("/mcp/sse", "")
	b.post(next(t, lines, "data: "), "", callJSON(1, `{"code":"other"}`))
	if data := next(t, lines, "data: "); !strings.Contains(data, "other") {
		t.Error(data)
	}
	if started, _ := b.ex.counts(); started != 1 {
		t.Errorf("%d calls were begun, not the other's alone", started)
	}
	b.front.sessions.remove(s.id)
	wg.Wait()
}
