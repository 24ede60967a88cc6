package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wire speaks MCP with no client between, where the test is about what passes on the wire.
type wire struct {
	testing.TB
	c       *caddy
	path    string // where messages are posted
	session string
	header  map[string]string
	data    <-chan string // what comes on the stream, of SSE
}

const (
	initializeMessage = `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	modernMeta        = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}`
)

// openWire opens a session of streamable HTTP.
func openWire(t testing.TB, c *caddy) *wire {
	t.Helper()
	w := &wire{TB: t, c: c, path: "/mcp"}
	status, body, header := w.post(initializeMessage)
	if w.session = header.Get("Mcp-Session-Id"); status != 200 || w.session == "" {
		t.Fatalf("%d %s", status, body)
	}
	return w
}

// openSSEWire opens a stream of the older transport, and a session on it.
func openSSEWire(t testing.TB, c *caddy) *wire {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/mcp/sse", http.NoBody)
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	data := make(chan string, 1000)
	go func() {
		defer close(data)
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewReader(resp.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: "); ok {
				data <- text
			}
		}
	}()
	w := &wire{TB: t, c: c, data: data}
	w.path = w.next()
	if status, body, _ := w.post(initializeMessage); status != 202 {
		t.Fatalf("%d %s", status, body)
	}
	w.next()
	return w
}

// next is the next message of the stream.
func (w *wire) next() string {
	w.Helper()
	select {
	case text, open := <-w.data:
		if !open {
			w.Fatal("the stream has ended")
		}
		return text
	case <-time.After(30 * time.Second):
		w.Fatal("nothing came for 30 s")
	}
	return ""
}

// request is a message to be posted.
func (w *wire) request(body string) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, w.c.url+w.path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if w.session != "" {
		req.Header.Set("Mcp-Session-Id", w.session)
	}
	for name, value := range w.header {
		req.Header.Set(name, value)
	}
	return req
}

func (w *wire) post(body string) (int, string, http.Header) {
	w.Helper()
	resp, err := w.c.client.Do(w.request(body))
	if err != nil {
		w.Error(err)
		return 0, "", http.Header{}
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Error(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

// toolCall is a message that calls a tool; meta is what stands in its _meta.
func toolCall(id int, tool, meta string, args map[string]any) string {
	raw, _ := json.Marshal(args)
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%q,"arguments":%s,"_meta":{%s}}}`, id, tool, raw, meta)
}

// events are the messages of a response that is an event stream.
func events(body string) (data []string) {
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: "); ok {
			data = append(data, text)
		}
	}
	return data
}

// Messages that are wrong are answered in the protocol, or by a status where there is nothing to answer, and run nothing.
func TestMCPBadMessages(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	session, sse := openWire(t, c), openSSEWire(t, c)
	call := toolCall(1, "execute_python", "", map[string]any{"code": "print('ran')"})
	modern := map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "execute_python"}
	plain := &wire{TB: t, c: c, path: "/mcp"}
	for _, b := range []struct {
		name, body string
		from       *wire
		header     map[string]string
		status     int
		says       string
	}{
		{"a batch", "[" + call + "," + call + "]", session, nil, 400, "-32700"},
		{"an empty batch", "[]", session, nil, 400, "-32700"},
		{"a batch over SSE", "[" + call + "]", sse, nil, 202, "-32700"},
		{"no JSON", "{", session, nil, 400, "-32700"},
		{"no JSON over SSE", "{", sse, nil, 400, "-32700"},
		{"JSON-RPC 1.0", `{"id":1,"method":"tools/list"}`, session, nil, 200, "-32600"},
		{"JSON-RPC 1.0 over SSE", `{"id":1,"method":"tools/list"}`, sse, nil, 202, "-32600"},
		{"an unknown method", `{"jsonrpc":"2.0","id":1,"method":"no/such"}`, session, nil, 200, "-32601"},
		{"an unknown method over SSE", `{"jsonrpc":"2.0","id":1,"method":"no/such"}`, sse, nil, 202, "-32601"},
		{"an unknown method, modern", `{"jsonrpc":"2.0","id":1,"method":"no/such","params":{"_meta":{` + modernMeta + `}}}`, plain,
			map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "no/such"}, 404, "-32601"},
		{"an unknown tool", toolCall(1, "no_such_tool", "", nil), session, nil, 200, "no_such_tool"},
		{"what tools-only servers lack", `{"jsonrpc":"2.0","id":1,"method":"resources/list"}`, session, nil, 200, "-32601"},
		{"an unknown version", call, session, map[string]string{"Mcp-Protocol-Version": "1999-01-01"}, 400, "1999-01-01"},
		{"a version of the future", strings.Replace(call, `"_meta":{`, `"_meta":{`+strings.Replace(modernMeta, "2026", "2099", 1), 1), plain,
			map[string]string{"Mcp-Protocol-Version": "2099-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "execute_python"}, 400, "-32022"},
		{"modern in the header only", call, plain, modern, 400, "-3260"},
		{"another name in the header", toolCall(1, "execute_python", modernMeta, nil), plain,
			map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "pip_install"}, 400, "-32020"},
		{"an unknown session", call, &wire{TB: t, c: c, path: "/mcp", session: "mcp-guess"}, nil, 404, "initialize a new one"},
		{"a session of the other transport", call, &wire{TB: t, c: c, path: "/mcp", session: strings.TrimPrefix(sse.path, "/mcp/message?sessionId=")}, nil, 404, "initialize"},
		{"an unknown stream", call, &wire{TB: t, c: c, path: "/mcp/message?sessionId=sse-guess"}, nil, 404, "connect to /mcp/sse again"},
		{"a stream of the other transport", call, &wire{TB: t, c: c, path: "/mcp/message?sessionId=" + session.session}, nil, 404, "/mcp/sse"},
		{"no stream", call, &wire{TB: t, c: c, path: "/mcp/message"}, nil, 404, "/mcp/sse"},
	} {
		t.Run(b.name, func(t *testing.T) {
			from := *b.from
			from.TB, from.header = t, b.header
			status, body, _ := from.post(b.body)
			if status == 202 {
				body = from.next()
			}
			if status != b.status || !strings.Contains(body, b.says) || strings.Contains(body, `ran\n`) {
				t.Errorf("%d %.500s", status, body)
			}
		})
	}
	// The sessions have not suffered.
	if _, body, _ := session.post(call); !strings.Contains(body, `ran\n`) {
		t.Errorf("%.500s", body)
	}
	sse.post(call)
	if body := sse.next(); !strings.Contains(body, `ran\n`) {
		t.Errorf("%.500s", body)
	}
}
