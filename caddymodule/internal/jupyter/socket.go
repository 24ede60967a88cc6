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

// socket is one client's connection to a kernel. One goroutine reads messages, another writes the frames that wait, a third pings.
type socket struct {
	front  *Front
	kernel *kernel
	conn   *websocket.Conn
	v1     bool               // frames are binary, as jupyterV1 says
	wake   chan struct{}      // buffered(1); wakes write
	cancel context.CancelFunc // ends the connection at once

	mu     sync.Mutex
	unsent [][]byte
	bytes  int  // in unsent
	ending bool // send takes no more frames; write closes the connection with code and reason when unsent is empty
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
		InsecureSkipVerify: true, // edge.CheckOrigin has checked the origin, and knows the operator's host names
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

// refuse closes the connection because of a message that cannot be taken, and returns when the close frame has been sent.
func (s *socket) refuse(ctx context.Context, code websocket.StatusCode, why error) {
	s.end(code, why.Error())
	<-ctx.Done()
}

// send queues a frame. It does not block: when too many bytes wait, since the client does not read, the connection is ended.
func (s *socket) send(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	if s.bytes+len(frame) > s.front.o.maxUnsent || s.front.unsent.Load()+int64(len(frame)) > maxUnsent {
		s.ending = true // without a close frame, which would have to wait as well
		s.cancel()
		return
	}
	s.unsent = append(s.unsent, frame)
	s.bytes += len(frame)
	s.front.unsent.Add(int64(len(frame)))
	s.signal()
}

// end closes the connection once the frames that wait are sent. It does not block. Only the first call counts.
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

// cutReason cuts a reason to the 123 bytes that a close frame holds (RFC 6455, section 5.5).
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

// next takes the oldest frame that waits, nil for none; over means that none will come any more.
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

// write sends the frames that wait, until the connection ends.
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

// keepAlive sends pings, so that proxies see traffic, and ends the connection when a client does not answer one in time.
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

// drop discards the frames that were not sent, and those that come later.
func (s *socket) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.front.unsent.Add(-int64(s.bytes))
	s.unsent, s.bytes = nil, 0
}
