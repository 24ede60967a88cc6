package jupyter

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

func tooManyKernels(most int, idle time.Duration) string {
	return fmt.Sprintf("%d kernels exist already, the most that this server keeps: delete one, or wait; those that nobody uses end after %s", most, idle)
}

// kernel runs the cells that clients send, one after the other, and publishes their output to all its sockets. Its first cell starts
// a process, in which later cells run as well. It is safe for concurrent use.
type kernel struct {
	front   *Front
	id      string
	session string // the session ID in the headers of its messages

	mu      sync.Mutex
	ended   bool
	sockets []*socket
	running *cell // nil for none
	queue   []*cell
	count   int       // the execution count of the last cell
	process *process  // nil before the first cell, and after the process has ended
	lost    string    // why the last process ended, for the next cell, which misses its names; "" for nothing to tell
	last    time.Time // when somebody used the kernel
}

func newKernel(f *Front) *kernel {
	return &kernel{front: f, id: newUUID(), session: newUUID(), last: time.Now()}
}

func (k *kernel) model() kernelModel {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := kernelModel{ID: k.id, Name: kernelName, LastActivity: timeText(k.last), ExecutionState: "idle", Connections: len(k.sockets)}
	if k.running != nil {
		m.ExecutionState = "busy"
	}
	return m
}

// used records that somebody uses the kernel now.
func (k *kernel) used() {
	now := time.Now()
	k.mu.Lock()
	k.last = now
	k.mu.Unlock()
	k.front.mu.Lock()
	k.front.last = now
	k.front.mu.Unlock()
}

func (k *kernel) idleSince(then time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running == nil && k.last.Before(then)
}

// join adds a socket. refused is a sentence for the client when it cannot be added.
func (k *kernel) join(s *socket) (refused string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return "the kernel has ended: start another one"
	case len(k.sockets) >= maxSockets:
		return fmt.Sprintf("%d connections to this kernel are open already: close one", maxSockets)
	}
	k.sockets = append(k.sockets, s)
	return ""
}

// leave removes a socket and the cells that it has queued. When it was the last socket, the running cell is interrupted, but the
// process is kept for a client that connects again.
func (k *kernel) leave(s *socket) {
	k.used()
	k.mu.Lock()
	k.sockets = slices.DeleteFunc(k.sockets, func(other *socket) bool { return other == s })
	k.queue = slices.DeleteFunc(k.queue, func(c *cell) bool { return c.from == s })
	if len(k.sockets) == 0 && k.running != nil {
		k.running.interrupt()
	}
	k.mu.Unlock()
	k.front.o.Slots.makeRoom()
}

// interrupt interrupts the running cell, if there is one. When that makes the cell fail, the queued cells are aborted.
func (k *kernel) interrupt() {
	k.used()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running != nil {
		k.running.interrupt()
	}
}

// restart aborts the queued cells, ends the process and the running cell, waits for their end, and resets the execution count.
func (k *kernel) restart() {
	k.used()
	k.abort(k.waiting())
	k.mu.Lock()
	p, c := k.process, k.running
	if c != nil {
		c.cancel() // if it still waits for a process, it gets none
	}
	k.mu.Unlock()
	if p != nil {
		p.end("was ended")
		<-p.done
	}
	if c != nil {
		<-c.over // a cell that is sent after this is not aborted with it
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.process == p {
		k.process = nil
	}
	k.count, k.lost = 0, ""
}

// end ends the running cell and the process, and closes the sockets with why as the reason. It does not wait. It is called by
// Front.remove only.
func (k *kernel) end(why string) {
	k.mu.Lock()
	k.ended = true
	k.queue = nil
	if k.running != nil {
		k.running.cancel()
	}
	p := k.process
	sockets := slices.Clone(k.sockets)
	k.mu.Unlock()
	if p != nil {
		p.end("was ended")
	}
	for _, s := range sockets {
		s.end(closeGoingAway, why)
	}
}

// enqueue lets c run after the cells before it. refused is a sentence for the client when it cannot run.
func (k *kernel) enqueue(c *cell) (refused string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return "the kernel has ended: start another one"
	case len(k.queue) >= maxQueue:
		return fmt.Sprintf("%d cells wait in this kernel already: wait for their replies", maxQueue)
	}
	if k.running != nil {
		k.queue = append(k.queue, c)
		return ""
	}
	k.begin(c)
	k.front.work.Go(func() { k.runFrom(c) })
	return ""
}

// begin makes c the running cell; runFrom ends its context. The caller holds k.mu.
func (k *kernel) begin(c *cell) {
	c.ctx, c.cancel = context.WithCancel(k.front.ctx)
	c.interrupts, c.over = make(chan struct{}, 1), make(chan struct{})
	k.running = c
}

// runFrom runs c and then the queued cells, until none is left.
func (k *kernel) runFrom(c *cell) {
	defer func() {
		if panicked := recover(); panicked != nil {
			k.front.o.Logger.Error("a cell panicked", zap.Any("panic", panicked), zap.Stack("stack"))
			k.front.remove(k, edge.InternalDetail)
			close(c.over)
		}
	}()
	for c != nil {
		aborted := k.run(c)
		c.cancel()
		k.used()
		k.abort(aborted)
		next := k.advance()
		close(c.over)
		c = next
	}
	k.front.o.Slots.makeRoom()
}

// advance makes the first queued cell the running one and returns it, nil for none.
func (k *kernel) advance() *cell {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = nil
	if len(k.queue) > 0 {
		k.begin(k.queue[0])
		k.queue = k.queue[1:]
	}
	return k.running
}

// waiting takes all cells out of the queue, for abort.
func (k *kernel) waiting() []*cell {
	k.mu.Lock()
	defer k.mu.Unlock()
	waiting := k.queue
	k.queue = nil
	return waiting
}

// abort answers cells without running them, since the cell before them has failed or the kernel was restarted.
func (k *kernel) abort(waiting []*cell) {
	for _, c := range waiting {
		k.publish(c.parent, "status", state("busy"))
		k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{"status": "aborted"})
		k.publish(c.parent, "status", state("idle"))
	}
}

func state(state string) any { return map[string]string{"execution_state": state} }

// publish sends a message on the iopub channel to all sockets.
func (k *kernel) publish(parent json.RawMessage, kind string, content any) {
	m := newMessage(k.session, channelIOPub, kind, parent, content)
	k.mu.Lock()
	sockets := slices.Clone(k.sockets)
	k.mu.Unlock()
	frames := frames{message: m}
	for _, s := range sockets {
		s.send(frames.of(s.v1))
	}
}

// reply sends a message to the socket whose request it answers.
func (k *kernel) reply(to *socket, channel string, parent json.RawMessage, kind string, content any) {
	frames := frames{message: newMessage(k.session, channel, kind, parent, content)}
	to.send(frames.of(to.v1))
}

// frames encodes a message at most once for each framing.
type frames struct {
	message  *message
	text, v1 []byte
}

func (f *frames) of(v1 bool) []byte {
	if v1 {
		if f.v1 == nil {
			f.v1 = f.message.encodeV1()
		}
		return f.v1
	}
	if f.text == nil {
		f.text = f.message.encodeText()
	}
	return f.text
}
