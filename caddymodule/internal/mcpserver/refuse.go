package mcpserver

import (
	"net/http"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// refuse answers with a problem document (RFC 9457), as the other surfaces do. It is for requests that are not handed to mcp-go, which
// answers faults in messages with JSON-RPC errors.
func refuse(w http.ResponseWriter, status int, k metrics.Kind, detail string) {
	edge.WriteProblem(w, edge.NewProblem(status, k, detail))
}

// refuseBusy answers 503 with a Retry-After header.
func refuseBusy(w http.ResponseWriter, k metrics.Kind, why string) {
	p := edge.NewProblem(http.StatusServiceUnavailable, k, why+": try again in a few seconds")
	p.RetryAfter = 5 * time.Second
	edge.WriteProblem(w, p)
}
