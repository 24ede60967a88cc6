package mcpserver

import (
	"bytes"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

const corsHeader = "Access-Control-Allow-Origin"

// streamWriter is the ResponseWriter that mcp-go writes to. It implements http.Flusher, which Caddy's writers do not; without it
// mcp-go answers 500 to every event stream. It also keeps a silent event stream alive with comments. mcp-go's pings would do so too,
// but their request IDs can equal those of the client's requests, and some clients then take one for the other.
// It is safe for concurrent use by mcp-go and beat.
type streamWriter struct {
	http.ResponseWriter
	// header is what mcp-go fills in. It is not the header of the ResponseWriter, which beat may be writing at the same time.
	header http.Header
	// wrote is called for each message that has been written to an event stream; nil is not called.
	wrote func(notification bool)

	mu      sync.Mutex
	started bool // the status line is written
	events  bool // the answer is an event stream
	opened  bool // the event stream was begun by beat, not by mcp-go
	closed  bool // beat writes no more
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{ResponseWriter: w, header: http.Header{}}
}

// Unwrap lets http.ResponseController reach the writer below.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *streamWriter) Header() http.Header { return s.header }

func (s *streamWriter) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked(status)
}

// Write takes a whole event or a whole JSON document, each of which mcp-go writes in one call.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked(http.StatusOK)
	// U+0085 ends a line for Python's httpx-sse before 0.4.2, and encoding/json leaves it as it is.
	out := bytes.ReplaceAll(p, []byte("\u0085"), []byte(`\u0085`))
	wrap := s.opened && s.header.Get("Content-Type") != edge.EventsType
	if wrap { // beat has begun an event stream meanwhile, so the JSON document is sent as an event
		out = append(append([]byte("event: message\ndata: "), bytes.TrimRight(out, "\n")...), "\n\n"...)
	}
	if _, err := s.ResponseWriter.Write(out); err != nil {
		return 0, err
	}
	if wrap {
		s.flushLocked()
	}
	if s.events && s.wrote != nil && bytes.HasPrefix(out, []byte("event: message")) {
		s.wrote(bytes.Contains(out[:min(len(out), 128)], []byte(`"method":"notifications/`)))
	}
	return len(p), nil
}

func (s *streamWriter) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked(http.StatusOK)
	s.flushLocked()
}

func (s *streamWriter) flushLocked() {
	_ = http.NewResponseController(s.ResponseWriter).Flush() // an error means that the client is gone, which ends the request's context
}

// startLocked sends mcp-go's status and header, except the "Access-Control-Allow-Origin: *" of its SSE transport: that would let any
// web page read the session ID and run code. CORS headers that the site has set stay. Preconditions: mu is held.
func (s *streamWriter) startLocked(status int) {
	if s.started {
		return
	}
	s.started = true
	s.header.Del(corsHeader)
	maps.Copy(s.ResponseWriter.Header(), s.header)
	if s.events = s.header.Get("Content-Type") == edge.EventsType; s.events {
		s.ResponseWriter.Header().Set("X-Accel-Buffering", "no") // keeps nginx from buffering events
	}
	s.ResponseWriter.WriteHeader(status)
}

// beat writes a comment each interval once an event stream has begun. With open it begins the event stream itself after the first
// interval, since clients give up when an answer that takes long sends nothing at all. The caller must call stop before its handler
// returns, since nothing may write to the ResponseWriter after that.
func (s *streamWriter) beat(interval time.Duration, open bool) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(interval, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		s.commentLocked(open)
		timer.Reset(interval)
	})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		timer.Stop()
	}
}

func (s *streamWriter) commentLocked(open bool) {
	if !s.started && open {
		s.started, s.events, s.opened = true, true, true
		h := s.ResponseWriter.Header()
		h.Set("Content-Type", edge.EventsType)
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
		s.ResponseWriter.WriteHeader(http.StatusOK)
	}
	if !s.events {
		return
	}
	if _, err := s.ResponseWriter.Write([]byte(": keep-alive\n\n")); err == nil {
		s.flushLocked()
	}
}

// nullWriter discards the answer to a request that forget makes.
type nullWriter struct{ header http.Header }

func (n *nullWriter) Header() http.Header         { return n.header }
func (n *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (n *nullWriter) WriteHeader(int)             {}
