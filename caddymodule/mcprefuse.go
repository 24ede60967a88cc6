package caddymodule

import (
	"net/http"
	"time"
)

// refuse answers a request that never becomes a message, in the shape of every other error of this module. Problems
// of messages are answered in the protocol.
func refuse(w http.ResponseWriter, status int, k kind, detail string) {
	writeProblem(w, newProblem(status, k, detail))
}

// refuseBusy is a refusal that invites another try.
func refuseBusy(w http.ResponseWriter, k kind, why string) {
	p := newProblem(http.StatusServiceUnavailable, k, why+": try again in a few seconds")
	p.RetryAfter = 5 * time.Second
	writeProblem(w, p)
}
