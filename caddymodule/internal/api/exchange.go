package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// adapter is what huma serves its operations on: our routes, with bodies that are read before huma starts and
// answers that are written when it is done.
type adapter struct {
	routes   edge.Routes
	maxBody  int64
	inFlight *atomic.Int64
}

// Handle adds an operation to the routes.
func (a *adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	a.routes.Add(op.Method, op.Path, func(w http.ResponseWriter, r *http.Request) {
		a.inFlight.Add(1)
		defer a.inFlight.Add(-1)
		x := &exchange{op: op, r: r, header: w.Header(), out: buffers.Get().(*bytes.Buffer)}
		defer putBuffer(x.out)
		if op.RequestBody != nil {
			body := buffers.Get().(*bytes.Buffer)
			defer putBuffer(body)
			if refused := edge.ReadBody(body, r, a.maxBody); refused != nil {
				edge.WriteProblem(w, refused)
				return
			}
			x.body.Reset(body.Bytes())
		}
		handler(x)
		x.send(w)
	})
}

// ServeHTTP is not how requests come in here.
func (a *adapter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "", http.StatusNotFound)
}

// buffers holds *bytes.Buffer.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= 1<<20 { // one large request should not pin its memory
		b.Reset()
		buffers.Put(b)
	}
}

// exchange is one request and its answer as huma sees them.
type exchange struct {
	op     *huma.Operation
	r      *http.Request
	body   bytes.Reader
	header http.Header
	out    *bytes.Buffer
	status int
}

// send writes the answer in one piece, so that its length is known.
func (x *exchange) send(w http.ResponseWriter) {
	if x.status == edge.StatusClientGone {
		w.WriteHeader(x.status) // for the access log; nobody reads a body
		return
	}
	x.header.Set("Content-Length", strconv.Itoa(x.out.Len()))
	w.WriteHeader(x.status)
	_, _ = w.Write(x.out.Bytes()) //nolint:errcheck // the client is gone
}

// Header says that bodies are JSON whatever the client says, since people paste curl -d, and leaves nothing to
// negotiate, since all answers are JSON.
func (x *exchange) Header(name string) string {
	switch {
	case strings.EqualFold(name, "Content-Type"):
		return "application/json"
	case strings.EqualFold(name, "Accept"):
		return ""
	}
	return x.r.Header.Get(name)
}

// SetReadDeadline does nothing: how slow a client may be is the site's business.
func (x *exchange) SetReadDeadline(time.Time) error { return nil }

// The rest of huma.Context has no decisions in it.

func (x *exchange) Operation() *huma.Operation      { return x.op }
func (x *exchange) Context() context.Context        { return x.r.Context() }
func (x *exchange) TLS() *tls.ConnectionState       { return x.r.TLS }
func (x *exchange) Method() string                  { return x.r.Method }
func (x *exchange) Host() string                    { return x.r.Host }
func (x *exchange) RemoteAddr() string              { return x.r.RemoteAddr }
func (x *exchange) URL() url.URL                    { return *x.r.URL }
func (x *exchange) Param(string) string             { return "" }
func (x *exchange) Query(name string) string        { return x.r.URL.Query().Get(name) }
func (x *exchange) BodyReader() io.Reader           { return &x.body }
func (x *exchange) BodyWriter() io.Writer           { return x.out }
func (x *exchange) SetStatus(code int)              { x.status = code }
func (x *exchange) Status() int                     { return x.status }
func (x *exchange) SetHeader(name, value string)    { x.header.Set(name, value) }
func (x *exchange) AppendHeader(name, value string) { x.header.Add(name, value) }
func (x *exchange) EachHeader(each func(name, v string)) {
	for name, values := range x.r.Header {
		for _, value := range values {
			each(name, value)
		}
	}
}

func (x *exchange) GetMultipartForm() (*multipart.Form, error) {
	return nil, http.ErrNotMultipart
}

func (x *exchange) Version() huma.ProtoVersion {
	return huma.ProtoVersion{Proto: x.r.Proto, ProtoMajor: x.r.ProtoMajor, ProtoMinor: x.r.ProtoMinor}
}

var (
	_ huma.Adapter = (*adapter)(nil)
	_ huma.Context = (*exchange)(nil)
)
