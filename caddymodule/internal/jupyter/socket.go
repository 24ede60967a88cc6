package jupyter

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// coder/websocket rather than gorilla/websocket: it finds the connection below Caddy's writers, bounds each step by a
// context, and has no dependencies.

const (
	closeGoingAway = websocket.StatusGoingAway
	closeMalformed = websocket.StatusUnsupportedData
	closeTryLater  = websocket.StatusTryAgainLater
)

// socket is one client's connection to a kernel. One goroutine reads, another writes what waits.
type socket struct {
	front  *Front
	kernel *kernel
	conn   *websocket.Conn
	v1     bool
	wake   chan struct{}
	cancel context.CancelFunc // ends the connection at once

	mu     sync.Mutex
	unsent [][]byte
	bytes  int
	ending bool
	code   websocket.StatusCode
	reason string
}

// serveChannels holds a WebSocket open until the client, the kernel or the front is gone.
func (f *Front) serveChannels(w http.ResponseWriter, r *http.Request, k *kernel) {
	f.mu.Lock()
	closing := f.closing
	if !closing {
		f.work.Add(1)
	}
	f.mu.Unlock()
	if closing {
		edge.WriteProblem(w, edge.AsProblem(pool.ErrClosed))
		return
	}
	defer f.work.Done()
	edge.LiftDeadlines(w, r)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{jupyterV1},
		InsecureSkipVerify: true, // CheckOrigin has looked, and knows the operator's own names
	})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow() //nolint:errcheck // it is gone already, or goes now
	conn.SetReadLimit(f.o.Bodies.Most())
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	s := &socket{front: f, kernel: k, conn: conn, v1: conn.Subprotocol() == jupyterV1, wake: make(chan struct{}, 1), cancel: cancel}
	if refused := k.join(s); refused != "" {
		_ = conn.Close(closeTryLater, refused)
		return
	}
	defer k.leave(s)
	k.used()
	var others sync.WaitGroup
	others.Go(func() {
		defer cancel()
		s.write(ctx)
	})
	others.Go(func() { s.keepAlive(ctx) })
	s.read(ctx)
	cancel()
	others.Wait()
}

// read takes messages until the connection ends.
func (s *socket) read(ctx context.Context) {
	for {
		kind, r, err := s.conn.Reader(ctx)
		if err != nil {
			return
		}
		frame, err := s.front.o.Bodies.ReadMessage(r)
		switch {
		case errors.Is(err, edge.ErrTooLong):
			s.refuse(ctx, websocket.StatusMessageTooBig, err)
			return
		case errors.Is(err, edge.ErrBodiesFull):
			s.refuse(ctx, closeTryLater, err)
			return
		case err != nil:
			return
		}
		s.kernel.used()
		m, err := decodeJupyter(frame.Bytes(), s.v1, kind == websocket.MessageBinary)
		if err != nil {
			frame.Free()
			s.refuse(ctx, closeMalformed, err)
			return
		}
		s.kernel.serve(s, m)
		frame.Free()
	}
}

// refuse ends the connection because of what came, and returns when the client has been told.
func (s *socket) refuse(ctx context.Context, code websocket.StatusCode, why error) {
	s.end(code, why.Error())
	<-ctx.Done()
}

// send queues a frame. It does not block: a client that does not read loses its connection instead.
func (s *socket) send(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	if s.bytes+len(frame) > s.front.o.maxUnsent || s.front.unsent.Load()+int64(len(frame)) > maxUnsent {
		s.ending = true // without a word, for which there is no room
		s.cancel()
		return
	}
	s.unsent = append(s.unsent, frame)
	s.bytes += len(frame)
	s.front.unsent.Add(int64(len(frame)))
	s.signal()
}

// end closes the connection when all that waits is sent. Only the first call counts.
func (s *socket) end(code websocket.StatusCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ending {
		s.endLocked(code, reason)
	}
}

func (s *socket) endLocked(code websocket.StatusCode, reason string) {
	s.ending, s.code, s.reason = true, code, cutReason(reason)
	s.signal()
}

// cutReason keeps a reason within what a close frame holds.
func cutReason(reason string) string {
	const most = 123
	if len(reason) <= most {
		return reason
	}
	return reason[:most-3] + "..."
}

func (s *socket) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest frame that waits; over says that none will come.
func (s *socket) next() (frame []byte, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsent) == 0 {
		return nil, s.ending
	}
	frame = s.unsent[0]
	s.unsent[0], s.unsent = nil, s.unsent[1:]
	s.bytes -= len(frame)
	s.front.unsent.Add(-int64(len(frame)))
	return frame, false
}

// write sends what waits until the connection ends.
func (s *socket) write(ctx context.Context) {
	defer s.drop()
	kind := websocket.MessageText
	if s.v1 {
		kind = websocket.MessageBinary
	}
	for {
		frame, over := s.next()
		switch {
		case frame != nil:
			if s.within(ctx, func(ctx context.Context) error { return s.conn.Write(ctx, kind, frame) }) != nil {
				return
			}
			continue
		case over:
			_ = s.conn.Close(s.code, s.reason)
			return
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// keepAlive pings, so that proxies see traffic and a client that is gone without a word is noticed.
func (s *socket) keepAlive(ctx context.Context) {
	tick := time.NewTicker(s.front.o.keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.within(ctx, s.conn.Ping) != nil {
				s.cancel()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *socket) within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.front.o.writeTimeout)
	defer cancel()
	return do(ctx)
}

// drop gives back what was never sent.
func (s *socket) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.front.unsent.Add(-int64(s.bytes))
	s.unsent, s.bytes = nil, 0
}
