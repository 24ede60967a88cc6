package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// StatusClientGone is what logs show when nobody is left to answer. No client sees it.
const StatusClientGone = 499

// Problem is an error as a caller sees it (RFC 9457). Build it with NewProblem, Invalid or AsProblem.
type Problem struct { //nolint:errname // the name that RFC 9457 gives it
	Type   string         `json:"type" format:"uri-reference" doc:"What kind of problem it is; about:blank means that the status says it all."`
	Title  string         `json:"title" doc:"The status in words."`
	Status int            `json:"status" doc:"The HTTP status."`
	Detail string         `json:"detail" doc:"What went wrong, and what to do about it."`
	Errors []ProblemError `json:"errors,omitempty" nullable:"false" doc:"The fields at fault."`

	// RetryAfter is how long to wait before another try; 0 means that waiting does not help.
	RetryAfter time.Duration `json:"-"`

	// Kind is the label of sandbox_errors_total.
	Kind    metrics.Kind `json:"-"`
	counted bool         // in sandbox_errors_total
}

// ProblemError is one field at fault.
type ProblemError struct {
	Location string `json:"location" doc:"Where, such as body.timeout."`
	Message  string `json:"message" doc:"What the field must be."`
}

// errorTable has the status and words for each error of an operation. Errors are turned into statuses nowhere else.
var errorTable = []struct {
	is         error
	status     int
	kind       metrics.Kind
	retryAfter time.Duration
	detail     string
}{
	{pool.ErrQueueFull, http.StatusServiceUnavailable, metrics.KindQueueFull, time.Second,
		"too many requests are waiting already: try again in a second"},
	{pool.ErrAcquireTimeout, http.StatusServiceUnavailable, metrics.KindAcquireTimeout, time.Second,
		"no worker became free in time: try again in a second"},
	{pool.ErrClosed, http.StatusServiceUnavailable, metrics.KindShuttingDown, time.Second,
		"the sandbox is shutting down or changing its configuration: try again in a second"},
	{install.ErrQueueFull, http.StatusServiceUnavailable, metrics.KindQueueFull, time.Second,
		"too many installs are waiting already: try again in a second"},
	{install.ErrClosed, http.StatusServiceUnavailable, metrics.KindShuttingDown, time.Second,
		"the sandbox is shutting down or changing its configuration: try again in a second"},
	{pool.ErrNotStarted, http.StatusServiceUnavailable, metrics.KindNotStarted, time.Second,
		"the sandbox could not start a worker for the code, and nothing of it ran: try again in a second; the server's log says what it lacks"},
	{pool.ErrWorkerLost, http.StatusServiceUnavailable, metrics.KindWorkerLost, time.Second,
		"the worker was lost while the code ran, through no fault of the code: try again; what the code had done is gone"},
	{context.Canceled, StatusClientGone, metrics.KindClientGone, 0, "the caller went away"},
	{context.DeadlineExceeded, StatusClientGone, metrics.KindClientGone, 0, "the caller's own deadline passed"},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout, metrics.KindBodyTimeout, 0, "the request body came too slowly"},
	{io.ErrUnexpectedEOF, http.StatusBadRequest, metrics.KindMalformed, 0, "the request body ended before it was complete"},
}

// AsProblem returns the problem that errorTable has for err. An error that is not in the table becomes an internal one, whose text the
// caller does not see.
func AsProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			p := NewProblem(row.status, row.kind, row.detail)
			p.RetryAfter = row.retryAfter
			return p
		}
	}
	return NewProblem(http.StatusInternalServerError, metrics.KindInternal, InternalDetail)
}

// InternalDetail is the detail of every internal problem.
const InternalDetail = "the sandbox failed on its side; the request is not at fault"

// NewProblem returns a problem with the title of the status.
func NewProblem(status int, k metrics.Kind, detail string) *Problem {
	title := http.StatusText(status)
	if status == StatusClientGone {
		title = "Client Closed Request"
	}
	return &Problem{Type: "about:blank", Title: title, Status: status, Detail: detail, Kind: k}
}

// Invalid is the problem of fields that are not as the schema says.
func Invalid(fields ...ProblemError) *Problem {
	p := NewProblem(http.StatusUnprocessableEntity, metrics.KindInvalid, "")
	p.Errors = fields
	for i, field := range fields {
		if i > 0 {
			p.Detail += "; "
		}
		p.Detail += field.Location + " " + field.Message
	}
	return p
}

// Count adds p to the metrics, once, however many layers it passes.
func (p *Problem) Count() {
	if !p.counted {
		p.counted = true
		metrics.Sandbox.Failed(p.Kind)
	}
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus makes a problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders makes a problem a huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	if p.RetryAfter <= 0 {
		return nil
	}
	seconds := (p.RetryAfter + time.Second - 1) / time.Second // whole seconds are all that the header knows
	return http.Header{"Retry-After": {strconv.Itoa(int(seconds))}}
}

// ContentType makes a problem a huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return ProblemType }

// ProblemType is the media type of a Problem (RFC 9457).
const ProblemType = "application/problem+json"

// WriteProblem answers with p and counts it, unless that was done where it arose.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	p.Count()
	header := w.Header()
	for name, values := range p.GetHeaders() {
		header[name] = values
	}
	if p.Kind == metrics.KindClientGone {
		w.WriteHeader(p.Status) // for the access log; nobody reads a body
		return
	}
	body, err := Encode(p)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", ProblemType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and labelled as such; fails when the client is gone
}

var _ interface {
	error
	GetStatus() int
	GetHeaders() http.Header
	ContentType(string) string
} = (*Problem)(nil)
