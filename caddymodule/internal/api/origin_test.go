package api

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func TestOrigins(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{Ready: true})
	own := site.Listener.Addr().String()
	_, port, err := net.SplitHostPort(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		refused            bool
	}{
		{"no browser", "POST", "/execute", nil, false},
		{"no browser under another name", "POST", "/execute", map[string]string{"Host": "sandbox:8001"}, false},
		{"a foreign page", "POST", "/execute", map[string]string{"Origin": "http://evil.example"}, true},
		{"a page of a file", "POST", "/execute", map[string]string{"Origin": "null"}, true},
		{"a foreign page that hides its origin", "POST", "/execute", map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		{"another port of this machine", "POST", "/execute", map[string]string{"Origin": "http://127.0.0.1:1"}, true},
		{"a sibling site", "POST", "/execute", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, true},
		{"our own page", "POST", "/execute", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://" + own}, false},
		{"our own page in an old browser", "POST", "/execute", map[string]string{"Origin": "http://" + own}, false},
		{"localhost", "POST", "/execute", map[string]string{"Host": "localhost:" + port, "Origin": "http://localhost:" + port}, false},
		{"a name that was pointed here", "POST", "/execute", map[string]string{"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, true},
		{"an address that is not this machine's", "POST", "/execute", map[string]string{"Host": "192.0.2.1", "Origin": "http://192.0.2.1"}, true},
		{"a preflight", "OPTIONS", "/execute", map[string]string{"Origin": "http://evil.example"}, true},
		{"a wrong method", "PUT", "/execute", map[string]string{"Origin": "http://evil.example"}, true},
		{"a link to the health page", "GET", "/health", map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		{"an event stream", "GET", "/mcp/sse", map[string]string{"Origin": "http://evil.example"}, true},
		{"an event stream without an origin", "GET", "/mcp/sse", map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		{"the newer event stream", "GET", "/mcp", map[string]string{"Origin": "http://evil.example"}, true},
		{"a pointed name at an event stream", "GET", "/mcp/sse", map[string]string{"Host": "evil.example", "Sec-Fetch-Site": "same-origin"}, true},
		{"an MCP message", "POST", "/mcp/message", map[string]string{"Origin": "http://evil.example"}, true},
		{"an MCP client under another name", "GET", "/mcp/sse", map[string]string{"Host": "sandbox:8001"}, true},
		{"an MCP client under a name that is listed", "GET", "/mcp/sse", map[string]string{"Host": "listed.example:8001"}, false},
		{"our own page under a name that is listed", "POST", "/execute", map[string]string{"Host": "listed.example", "Origin": "http://listed.example"}, false},
		{"a foreign page under a name that is listed", "POST", "/execute", map[string]string{"Host": "listed.example", "Origin": "http://evil.example"}, true},
		{"an MCP client", "GET", "/mcp/sse", nil, false},
		{"an inspector that was typed into the address bar", "GET", "/mcp/sse", map[string]string{"Sec-Fetch-Site": "none"}, false},
		{"somebody else's path", "POST", "/", map[string]string{"Origin": "http://evil.example"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, body, header := edgetest.Send(t, c.method, site.URL+c.path, strings.NewReader(`{"code":"1"}`), c.header)
			if (status == http.StatusForbidden) != c.refused {
				t.Errorf("got %d %s", status, body)
			}
			if status == http.StatusForbidden {
				edgetest.CheckProblem(t, status, body, header)
			}
			if header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("another origin is let in")
			}
		})
	}
}
