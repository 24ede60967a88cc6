package caddymodule

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// statusClientGone is what logs show when nobody is left to answer. No client sees it.
const statusClientGone = 499

// problem is an error as a caller sees it (RFC 9457). Build it with newProblem, invalid or asProblem.
type problem struct {
	Type   string         `json:"type" format:"uri-reference" doc:"What kind of problem it is; about:blank means that the status says it all."`
	Title  string         `json:"title" doc:"The status in words."`
	Status int            `json:"status" doc:"The HTTP status."`
	Detail string         `json:"detail" doc:"What went wrong, and what to do about it."`
	Errors []problemError `json:"errors,omitempty" nullable:"false" doc:"The fields at fault."`

	// RetryAfter is when another try is worth it; 0 means that waiting does not help.
	RetryAfter time.Duration `json:"-"`

	kind    kind
	counted bool // in sandbox_errors_total
}

// problemError is one field at fault.
type problemError struct {
	Location string `json:"location" doc:"Where, such as body.timeout."`
	Message  string `json:"message" doc:"What the field must be."`
}

// errorTable says what each error that can reach a surface is to its caller. It is the only place that turns errors
// into statuses.
var errorTable = []struct {
	is         error
	status     int
	kind       kind
	retryAfter time.Duration
	detail     string
}{
	{pool.ErrQueueFull, http.StatusServiceUnavailable, kindQueueFull, time.Second,
		"too many requests are waiting already: try again in a second"},
	{pool.ErrAcquireTimeout, http.StatusServiceUnavailable, kindAcquireTimeout, time.Second,
		"no worker became free in time: try again in a second"},
	{pool.ErrClosed, http.StatusServiceUnavailable, kindShuttingDown, time.Second,
		"the sandbox is shutting down or changing its configuration: try again in a second"},
	{pool.ErrWorkerLost, http.StatusServiceUnavailable, kindWorkerLost, time.Second,
		"the worker was lost while the code ran, through no fault of the code: try again; what the code had done is gone"},
	{context.Canceled, statusClientGone, kindClientGone, 0, "the caller went away"},
	{context.DeadlineExceeded, statusClientGone, kindClientGone, 0, "the caller's own deadline passed"},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout, kindBodyTimeout, 0, "the request body came too slowly"},
	{io.ErrUnexpectedEOF, http.StatusBadRequest, kindMalformed, 0, "the request body ended before it was complete"},
}

// asProblem returns what err is to its caller. An error that the table does not know is ours: its words stay in the log.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			p := newProblem(row.status, row.kind, row.detail)
			p.RetryAfter = row.retryAfter
			return p
		}
	}
	return newProblem(http.StatusInternalServerError, kindInternal, internalDetail)
}

const internalDetail = "the sandbox failed on its side; the request is not at fault"

func newProblem(status int, k kind, detail string) *problem {
	title := http.StatusText(status)
	if status == statusClientGone {
		title = "Client Closed Request"
	}
	return &problem{Type: "about:blank", Title: title, Status: status, Detail: detail, kind: k}
}

// invalid is the problem of fields that are not as the schema says.
func invalid(fields ...problemError) *problem {
	p := newProblem(http.StatusUnprocessableEntity, kindInvalid, "")
	p.Errors = fields
	for i, field := range fields {
		if i > 0 {
			p.Detail += "; "
		}
		p.Detail += field.Location + " " + field.Message
	}
	return p
}

// count adds p to the metrics, once, however many layers it passes.
func (p *problem) count() {
	if !p.counted {
		p.counted = true
		sandboxMetrics.failed(p.kind)
	}
}

func (p *problem) Error() string { return p.Detail }

// GetStatus makes a problem a huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders makes a problem a huma.HeadersError.
func (p *problem) GetHeaders() http.Header {
	if p.RetryAfter <= 0 {
		return nil
	}
	seconds := (p.RetryAfter + time.Second - 1) / time.Second // whole seconds are all that the header knows
	return http.Header{"Retry-After": {strconv.Itoa(int(seconds))}}
}

// ContentType makes a problem a huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// writeProblem answers with p and counts it, unless that was done where it arose.
func writeProblem(w http.ResponseWriter, p *problem) {
	p.count()
	header := w.Header()
	for name, values := range p.GetHeaders() {
		header[name] = values
	}
	if p.kind == kindClientGone {
		w.WriteHeader(p.Status) // for the access log; nobody reads a body
		return
	}
	body, err := encode(p)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", problemType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) //nolint:errcheck // the client is gone
}

var _ interface {
	error
	GetStatus() int
	GetHeaders() http.Header
	ContentType(string) string
} = (*problem)(nil)
