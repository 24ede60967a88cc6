package api

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// mux is what humago registers operations with: our routes. Each body is read before huma starts, so that it is bounded with
// all others, and each answer is sent when huma is done, in one piece.
type mux struct {
	edge.Routes
	bodies   *edge.Bodies
	inFlight *atomic.Int64
}

// HandleFunc adds the operation of a pattern, such as "POST /execute".
func (m mux) HandleFunc(pattern string, serve func(http.ResponseWriter, *http.Request)) {
	method, path, _ := strings.Cut(pattern, " ")
	m.Add(method, path, func(w http.ResponseWriter, r *http.Request) {
		m.inFlight.Add(1)
		defer m.inFlight.Add(-1)
		// Bodies are JSON whatever the client says of them, since people paste curl -d, and all answers are; so huma finds no
		// header to choose by.
		asked := *r
		asked.Header = nil
		if method == http.MethodPost {
			body, refused := m.bodies.Read(w, r)
			if refused != nil {
				edge.WriteProblem(w, refused)
				return
			}
			defer body.Free()
			body.Replace(&asked)
		}
		a := &answer{header: w.Header(), status: http.StatusOK, out: buffers.Get().(*bytes.Buffer)}
		defer putBuffer(a.out)
		serve(a, &asked)
		a.send(w)
	})
}

// ServeHTTP is not how requests come in here: the routes are.
func (mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

// buffers holds *bytes.Buffer.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= 1<<20 { // one large answer should not pin its memory
		b.Reset()
		buffers.Put(b)
	}
}

// answer keeps what huma answers, so that its length is known before it is sent.
type answer struct {
	header http.Header
	status int
	out    *bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.out.Write(p) }

func (a *answer) send(w http.ResponseWriter) {
	if a.status == edge.StatusClientGone {
		w.WriteHeader(a.status) // for the access log; nobody reads a body
		return
	}
	a.header.Set("Content-Length", strconv.Itoa(a.out.Len()))
	w.WriteHeader(a.status)
	_, _ = io.Copy(w, a.out) // fails when the client is gone
}
