package edge

import (
	"net/http"
	"testing"
)

// Whoever gets a path wrong sends the same secrets, and Caddy logs requests that nobody answers, too.
func TestSecretsAreExpectedOnPathsThatAreNearlyRight(t *testing.T) {
	t.Parallel()
	nothing := func(http.ResponseWriter, *http.Request) {}
	rs := Routes{}
	rs.AddSensitive(http.MethodPost, "/mcp", nothing)
	rs.AddSensitive(http.MethodPost, "/mcp/message", nothing)
	rs.AddSensitive(http.MethodGet, "/jupyter/", nothing)
	rs.Add(http.MethodPost, "/execute", nothing)
	for path, want := range map[string]bool{
		"/mcp": true, "/mcp/message": true, "/mcp/": true, "//mcp": true, "/MCP": true, "/mcp//message": true, "/mcp/Message": true, "/./mcp": true, "/x/../mcp/sse": true,
		"/jupyter/api": true, "/jupyter": true, "//jupyter/api/kernels": true, "/Jupyter/api": true, "jupyter": true,
		"/execute": false, "//execute": false, "/": false, "": false, "/mcps": false, "/other/mcp": false, "/mcp.html": false,
	} {
		if got := rs.IsSensitive(path); got != want {
			t.Errorf("%q: %t", path, got)
		}
	}
}
