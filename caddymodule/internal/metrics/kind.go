package metrics

// Kind says why a request was refused or has failed. It is the label of sandbox_errors_total, so the set of kinds is closed.
type Kind string

const (
	KindMalformed      Kind = "malformed"          // the body is not JSON
	KindInvalid        Kind = "invalid"            // a field is not as the schema says
	KindTooLarge       Kind = "too_large"          // the body is over limits request_body
	KindBodiesFull     Kind = "bodies_full"        // all bodies together are over limits request_bodies
	KindBodyTimeout    Kind = "body_timeout"       // the body came too slowly
	KindNotFound       Kind = "not_found"          // no such part of the documentation
	KindMethod         Kind = "method_not_allowed" // a known path with another method
	KindCrossOrigin    Kind = "cross_origin"       // a browser sent it for another site
	KindUnauthorized   Kind = "unauthorized"       // without the token that jupyter asks for
	KindQueueFull      Kind = "queue_full"
	KindAcquireTimeout Kind = "acquire_timeout"
	KindShuttingDown   Kind = "shutting_down"
	KindNotStarted     Kind = "not_started" // no worker could be made
	KindWorkerLost     Kind = "worker_lost"
	KindClientGone     Kind = "client_gone"
	KindRate           Kind = "rate_limited" // packages rate
	KindInternal       Kind = "internal"
)

var kinds = []Kind{KindMalformed, KindInvalid, KindTooLarge, KindBodiesFull, KindBodyTimeout, KindNotFound, KindMethod, KindCrossOrigin, KindUnauthorized, KindQueueFull,
	KindAcquireTimeout, KindShuttingDown, KindNotStarted, KindWorkerLost, KindClientGone, KindRate, KindInternal}
