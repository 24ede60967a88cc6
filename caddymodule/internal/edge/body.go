package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

const (
	// firstBodyBytes is the buffer with which reading a body begins; most bodies fit.
	firstBodyBytes = 2 << 10
	// drainBytes is how much of a refused body is still read: many clients look at the answer only after they have sent
	// everything, and would see a broken connection instead of it.
	drainBytes = 64 << 20
)

// ErrBodiesFull is why a body or message is refused for which there is no memory at the moment.
var ErrBodiesFull = errors.New("the bodies of requests hold all the memory that they may have")

// Bodies bounds what clients make the server hold: each body, all bodies that are in memory at once, and how long one may
// take to arrive. The memory of a body follows the bytes that have come, whatever length was announced. It is safe for
// concurrent use.
type Bodies struct {
	one, all int64 // limits in bytes
	within   time.Duration
	held     atomic.Int64
}

// NewBodies bounds one body and all together, in bytes, and the time that one may take to arrive; 0 leaves that to the site.
func NewBodies(one, all int64, within time.Duration) *Bodies {
	return &Bodies{one: one, all: max(one, all), within: within}
}

// Most is how many bytes a body may have.
func (b *Bodies) Most() int64 { return b.one }

// Body is what a client has sent. Its owner must Free it, and not use it after that.
type Body struct {
	bodies *Bodies
	bytes  []byte // its capacity is counted in bodies
}

// Bytes is what has come.
func (b *Body) Bytes() []byte { return b.bytes }

// Free gives the memory back.
func (b *Body) Free() {
	b.bodies.held.Add(-int64(cap(b.bytes)))
	b.bytes = nil
}

// grow makes room for more bytes, or says that there is none.
func (b *Body) grow() error {
	size := max(firstBodyBytes, 2*cap(b.bytes))
	if b.bodies.held.Add(int64(size-cap(b.bytes))) > b.bodies.all {
		b.bodies.held.Add(-int64(size - cap(b.bytes)))
		return ErrBodiesFull
	}
	b.bytes = append(make([]byte, 0, size), b.bytes...)
	return nil
}

// Read reads the body of a request. It gets as much time as NewBodies was told, unless the site has a limit of its own
// (timeouts read_body).
func (b *Bodies) Read(w http.ResponseWriter, r *http.Request) (*Body, *Problem) {
	if r.ContentLength > b.one {
		_, _ = io.CopyN(io.Discard, r.Body, drainBytes) // the answer does not depend on it
		return nil, BodyTooLarge(b.one)
	}
	if b.within > 0 && r.ContentLength != 0 && !hasReadTimeout(r) {
		c := http.NewResponseController(w)
		if c.SetReadDeadline(time.Now().Add(b.within)) == nil {
			defer func() { _ = c.SetReadDeadline(time.Time{}) }() // what could be set can be lifted, too
		}
	}
	body, err := b.ReadMessage(r.Body)
	switch {
	case err == nil:
		return body, nil
	case errors.Is(err, ErrBodiesFull):
		p := NewProblem(http.StatusServiceUnavailable, metrics.KindBodiesFull,
			"too many large requests are in progress: try again in a second; the operator can raise limits request_bodies")
		p.RetryAfter = time.Second
		return nil, p
	case errors.Is(err, ErrTooLong):
		_, _ = io.CopyN(io.Discard, r.Body, drainBytes) // the answer does not depend on it
		return nil, BodyTooLarge(b.one)
	default:
		return nil, unreadable(err)
	}
}

func hasReadTimeout(r *http.Request) bool {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	return ok && server.ReadTimeout > 0
}

// ErrTooLong is why a message is refused that is larger than one may be.
var ErrTooLong = errors.New("it is larger than limits request_body allows")

// ReadMessage reads a message to its end. Its error is that of r, or a sentence about a bound that the message is beyond.
func (b *Bodies) ReadMessage(r io.Reader) (*Body, error) {
	body := &Body{bodies: b}
	for {
		if len(body.bytes) == cap(body.bytes) {
			if err := body.grow(); err != nil {
				body.Free()
				return nil, err
			}
		}
		n, err := r.Read(body.bytes[len(body.bytes):cap(body.bytes)])
		body.bytes = body.bytes[:len(body.bytes)+n]
		if int64(len(body.bytes)) > b.one {
			err = ErrTooLong
		}
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			body.Free()
			return nil, err
		}
	}
}

// Replace puts the body back for a handler that reads the request itself.
func (b *Body) Replace(r *http.Request) {
	r.Body = io.NopCloser(bytes.NewReader(b.bytes))
	r.ContentLength = int64(len(b.bytes))
}

// BodyTooLarge is the refusal of a body of more than limit bytes.
func BodyTooLarge(limit int64) *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, metrics.KindTooLarge,
		fmt.Sprintf("the request body is larger than %s: make the code or stdin smaller", humanize.IBytes(uint64(limit))))
}

// unreadable is why a body could not be read. Whatever it is, it happened on the way here.
func unreadable(err error) *Problem {
	if p := AsProblem(err); p.Kind != metrics.KindInternal {
		return p
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return NewProblem(http.StatusRequestEntityTooLarge, metrics.KindTooLarge, "the request body is larger than "+
			humanize.IBytes(uint64(tooLarge.Limit))+", which the site accepts")
	}
	return NewProblem(http.StatusBadRequest, metrics.KindMalformed, "the request body could not be read to its end")
}
