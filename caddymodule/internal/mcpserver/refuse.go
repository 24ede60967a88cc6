package mcpserver

import (
	"net/http"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// refuse answers a request that never becomes a message, in the shape of every other error of this module. Problems
// of messages are answered in the protocol.
func refuse(w http.ResponseWriter, status int, k metrics.Kind, detail string) {
	edge.WriteProblem(w, edge.NewProblem(status, k, detail))
}

// refuseBusy is a refusal that invites another try.
func refuseBusy(w http.ResponseWriter, k metrics.Kind, why string) {
	p := edge.NewProblem(http.StatusServiceUnavailable, k, why+": try again in a few seconds")
	p.RetryAfter = 5 * time.Second
	edge.WriteProblem(w, p)
}
