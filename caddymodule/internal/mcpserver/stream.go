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

// streamWriter is what mcp-go writes to. It is a Flusher, which Caddy's writers are not (without it mcp-go answers 500
// to every event stream), and it keeps a silent stream alive with comments. Comments rather than mcp-go's pings,
// because the ids of those equal the ids of client requests, and naive clients mix the two up.
type streamWriter struct {
	http.ResponseWriter
	// header is the one that mcp-go fills in. It does so while beat may be writing, so it is not the header of the ResponseWriter.
	header http.Header
	// wrote hears of each message that has gone out on an event stream.
	wrote func(notification bool)

	mu      sync.Mutex
	started bool // the status is out
	events  bool // the answer is an event stream
	opened  bool // the event stream was begun by beat, not by mcp-go
	closed  bool
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{ResponseWriter: w, header: http.Header{}}
}

// Unwrap serves http.ResponseController.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *streamWriter) Header() http.Header { return s.header }

func (s *streamWriter) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked(status)
}

// Write passes whole events or whole documents on; mcp-go writes each in one call.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked(http.StatusOK)
	// U+0085 ends a line for Python's httpx-sse before 0.4.2, and encoding/json leaves it as it is.
	out := bytes.ReplaceAll(p, []byte("\u0085"), []byte(`\u0085`))
	wrap := s.opened && s.header.Get("Content-Type") != edge.EventsType
	if wrap { // the stream was begun to keep the client waiting, so the document becomes its event
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
	_ = http.NewResponseController(s.ResponseWriter).Flush() // a client that is gone shows in ctx
}

// startLocked sends mcp-go's status and header, but not the star that its SSE transport puts in: with it any web page may
// read the session id and run code. What the site itself allows stays.
func (s *streamWriter) startLocked(status int) {
	if s.started {
		return
	}
	s.started = true
	s.header.Del(corsHeader)
	maps.Copy(s.ResponseWriter.Header(), s.header)
	if s.events = s.header.Get("Content-Type") == edge.EventsType; s.events {
		s.ResponseWriter.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	}
	s.ResponseWriter.WriteHeader(status)
}

// beat writes a comment each interval once an event stream has begun. With open it begins one itself, for an answer that
// takes long: clients give up when they hear nothing at all. The caller must call stop before it returns to net/http,
// after which nothing may write.
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

// nullWriter swallows the answer to a request that the server makes to itself.
type nullWriter struct{ header http.Header }

func (n *nullWriter) Header() http.Header         { return n.header }
func (n *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (n *nullWriter) WriteHeader(int)             {}
