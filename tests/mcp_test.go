package tests

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client"
	mcptransport "github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
)

// mcpSession is a client of one transport: "sse", "http" with a session, or "modern", which has none (2026-07-28).
type mcpSession struct {
	testing.TB
	transport string
	*client.Client
}

func dialMCP(t testing.TB, c *caddy, transport string) *mcpSession {
	t.Helper()
	return dialMCPAt(t, c.url+"/mcp", transport)
}

func dialMCPAt(t testing.TB, base, transport string) *mcpSession {
	t.Helper()
	s := &mcpSession{TB: t, transport: transport}
	var wire mcptransport.Interface
	var err error
	var options []client.ClientOption
	if transport == "sse" {
		wire, err = mcptransport.NewSSE(base + "/sse")
	} else {
		wire, err = mcptransport.NewStreamableHTTP(base)
	}
	if err != nil {
		t.Fatal(err)
	}
	if transport == "http" {
		//nolint:staticcheck // deprecated, and the sessions of the handshake are what this transport is tested for
		options = append(options, client.WithLegacyProtocolOnly())
	}
	s.Client = client.NewClient(wire, options...)
	t.Cleanup(func() { _ = s.Close() })
	ctx := context.Background() // an SSE stream lives as long as the context that it was started with
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var req mcp.InitializeRequest
	req.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	req.Params.ClientInfo = mcp.Implementation{Name: "tests", Version: "1"}
	if _, err := s.Initialize(ctx, req); err != nil {
		t.Fatal(err)
	}
	if modern := wire.GetSessionId() == "" && transport != "sse"; modern != (transport == "modern") {
		t.Fatalf("%s has the session %q", transport, wire.GetSessionId())
	}
	return s
}

func (s *mcpSession) call(ctx context.Context, args map[string]any) (*mcp.CallToolResult, error) {
	var req mcp.CallToolRequest
	req.Params.Name = "execute_python"
	req.Params.Arguments = args
	return s.CallTool(ctx, req)
}

// print runs code and returns its standard output.
func (s *mcpSession) print(code string) string {
	s.Helper()
	result, err := s.call(context.Background(), map[string]any{"code": code})
	if err != nil {
		s.Errorf("calling over %s: %v", s.transport, err)
		return ""
	}
	if len(result.Content) != 1 || result.IsError {
		s.Errorf("result over %s: %+v", s.transport, result)
		return ""
	}
	text, _ := result.Content[0].(mcp.TextContent)
	var out struct {
		Stdout string `json:"stdout"`
	}
	if err := json.Unmarshal([]byte(text.Text), &out); err != nil {
		s.Errorf("%q: %v", text.Text, err)
	}
	return out.Stdout
}

func TestMCPClientGoneFreesItsWorker(t *testing.T) {
	c := startCaddy(t, caddyOptions{})
	for _, transport := range []string{"sse", "http", "modern"} {
		t.Run(transport, func(t *testing.T) {
			s := dialMCP(t, c, transport)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = s.call(ctx, map[string]any{"code": "import time\nwhile True: time.sleep(1)", "timeout": 30})
			}()
			c.waitHealth(wholeWithin, "a worker at work", leased(1))
			if transport == "sse" {
				_ = s.Close()
			}
			cancel()
			<-done
			c.waitHealth(time.Second, "the worker free", leased(0))
		})
	}
}

// Cancelling is not the same as leaving: the session goes on.
func TestMCPCancelledFreesItsWorker(t *testing.T) {
	c := startCaddy(t, caddyOptions{})
	for _, transport := range []string{"sse", "http"} {
		t.Run(transport, func(t *testing.T) {
			s := dialMCP(t, c, transport)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = s.call(context.Background(), map[string]any{"code": "import time\nwhile True: time.sleep(1)", "timeout": 30})
			}()
			c.waitHealth(wholeWithin, "a worker at work", leased(1))
			note := mcp.JSONRPCNotification{JSONRPC: "2.0"}
			note.Method = "notifications/cancelled"
			// Ids are counted from 1; initialize was the first or, after a probe, the second.
			for id := range 6 {
				note.Params.AdditionalFields = map[string]any{"requestId": id}
				if err := s.GetTransport().SendNotification(t.Context(), note); err != nil {
					t.Fatal(err)
				}
			}
			c.waitHealth(time.Second, "the worker free", leased(0))
			<-done
			if got := s.print("print('still here')"); got != "still here\n" {
				t.Errorf("after the cancellation: %q", got)
			}
		})
	}
}

// A lone POST of a tools/call is served without a session.
func TestMCPDirectCall(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"print(6*7)"}}}`
	resp, err := http.Post(c.url+"/mcp", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(got), `"stdout":"42\n"`) {
		t.Errorf("%d %s %v", resp.StatusCode, got, err)
	}
}

// handle_path cuts the path off before the module sees it; clients are told the one they can reach.
func TestMCPUnderAPath(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{site: "handle_path /team/a/* {\n python_sandbox\n }"})
	for _, transport := range []string{"sse", "http", "modern"} {
		if got := dialMCPAt(t, c.url+"/team/a/mcp", transport).print("print('here')"); got != "here\n" {
			t.Errorf("%s: %q", transport, got)
		}
	}
}
