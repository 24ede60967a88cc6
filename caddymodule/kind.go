package caddymodule

// kind is the closed set of what can go wrong, as the label of sandbox_errors_total.
type kind string

const (
	kindMalformed      kind = "malformed"          // the body is not JSON
	kindInvalid        kind = "invalid"            // a field is not as the schema says
	kindTooLarge       kind = "too_large"          // the body is over limits request_body
	kindBodyTimeout    kind = "body_timeout"       // the body came too slowly
	kindNotFound       kind = "not_found"          // no such part of the documentation
	kindMethod         kind = "method_not_allowed" // a known path with another method
	kindCrossOrigin    kind = "cross_origin"       // a browser sent it for another site
	kindUnauthorized   kind = "unauthorized"       // without the token of jupyter
	kindQueueFull      kind = "queue_full"
	kindAcquireTimeout kind = "acquire_timeout"
	kindShuttingDown   kind = "shutting_down"
	kindWorkerLost     kind = "worker_lost"
	kindClientGone     kind = "client_gone"
	kindRate           kind = "rate_limited" // packages rate
	kindInternal       kind = "internal"
)

var kinds = []kind{kindMalformed, kindInvalid, kindTooLarge, kindBodyTimeout, kindNotFound, kindMethod, kindCrossOrigin, kindUnauthorized, kindQueueFull,
	kindAcquireTimeout, kindShuttingDown, kindWorkerLost, kindClientGone, kindRate, kindInternal}
