package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestMCPAccessLogHidesSessions(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"/mcp":                              "/mcp",
		"/mcp/message?sessionId=sse-secret": "/mcp/message?sessionId=REDACTED",
		"/mcp/message?a=1&session%49d=sse-secret": "/mcp/message?a=1&sessionId=REDACTED",
		"/mcp/message?sessionId=x&sessionId=y":    "/mcp/message?sessionId=REDACTED",
		"/mcp/message?sessionId=x;y":              "/mcp/message?REDACTED",
		"/mcp/message?sessionid=x":                "/mcp/message?sessionid=x", // nothing takes it for the id
		"/mcp/message?a=1":                        "/mcp/message?a=1",
	} {
		if got := withoutSessionID(uri); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
	header := http.Header{"Mcp-Session-Id": {"mcp-secret"}, "Accept": {"*/*"}}
	if got := withoutSession(header); got.Get("Mcp-Session-Id") != redacted || got.Get("Accept") != "*/*" || header.Get("Mcp-Session-Id") != "mcp-secret" {
		t.Errorf("got %v of %v", got, header)
	}
}

// The line goes where Caddy would have sent its own.
func TestMCPAccessLogNames(t *testing.T) {
	t.Parallel()
	logs := &caddyhttp.ServerLogConfig{DefaultLoggerName: "rest", LoggerNames: map[string]caddyhttp.StringArray{
		"a.example": {"a", "all"}, "*.example": {"others"}}}
	for host, want := range map[string][]string{
		"a.example": {"a", "all"}, "A.Example:8443": {"a", "all"}, "b.example": {"others"}, "x.b.example": {"rest"}, "localhost:1": {"rest"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/mcp", http.NoBody)
		r.Host = host
		if got := loggerNames(logs, r); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", host, got, want)
		}
		vars := map[string]any{caddyhttp.AccessLoggerNameVarKey: []any{"mine"}}
		if got := loggerNames(logs, r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))); !slices.Equal(got, []string{"mine"}) {
			t.Errorf("log_name on %s: got %v", host, got)
		}
	}
}
