package caddymodule

import (
	"bytes"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const corsHeader = "Access-Control-Allow-Origin"

// streamWriter is what mcp-go writes to. It is a Flusher, which Caddy's writers are not (without it mcp-go answers 500
// to every event stream), and it keeps a silent stream alive with comments. Comments rather than mcp-go's pings,
// because the ids of those equal the ids of client requests, and naive clients mix the two up.
type streamWriter struct {
	http.ResponseWriter
	cors []string // what the site had allowed before mcp-go allowed everyone

	mu      sync.Mutex
	started bool
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{ResponseWriter: w, cors: w.Header()[corsHeader]}
}

// Unwrap serves http.ResponseController.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *streamWriter) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked()
	s.ResponseWriter.WriteHeader(status)
}

// Write passes whole events or whole documents on; mcp-go writes each in one call.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked()
	// U+0085 ends a line for Python's httpx-sse before 0.4.2, and encoding/json leaves it as it is.
	if _, err := s.ResponseWriter.Write(bytes.ReplaceAll(p, []byte("\u0085"), []byte(`\u0085`))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *streamWriter) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked()
	s.flushLocked()
}

func (s *streamWriter) flushLocked() {
	_ = http.NewResponseController(s.ResponseWriter).Flush() //nolint:errcheck // a client that is gone shows in ctx
}

// startLocked takes back the star that mcp-go's SSE transport puts in the header: with it any web page may read the
// session id and run code.
func (s *streamWriter) startLocked() {
	if s.started {
		return
	}
	s.started = true
	if s.cors == nil {
		s.Header().Del(corsHeader)
	} else {
		s.Header()[corsHeader] = s.cors
	}
}

// beat writes a comment each interval once the stream has begun. The caller must call stop before it returns to
// net/http, after which nothing may write.
func (s *streamWriter) beat(interval time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				s.comment()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

func (s *streamWriter) comment() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return
	}
	if _, err := s.ResponseWriter.Write([]byte(": keep-alive\n\n")); err == nil {
		s.flushLocked()
	}
}

// liftDeadlines exempts an event stream from the server's read and write timeouts, which bound whole requests and would
// cut it. Idle limits on a transfer in flight stay.
func liftDeadlines(w http.ResponseWriter, r *http.Request) {
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Deadline.HardDeadline = time.Time{}
	}
	if writer != nil {
		writer.Deadline.HardDeadline = time.Time{}
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})  //nolint:errcheck // not every writer has deadlines to lift
	_ = c.SetWriteDeadline(time.Time{}) //nolint:errcheck // likewise
}

// nullWriter swallows the answer to a request that the server makes to itself.
type nullWriter struct{ header http.Header }

func (n *nullWriter) Header() http.Header         { return n.header }
func (n *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (n *nullWriter) WriteHeader(int)             {}
