package jupyter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// process is the worker in which the cells of a kernel run, one at a time: it has their names, their files and their
// figures. It holds a slot until it has ended. Its methods are safe for concurrent use, but for run.
type process struct {
	front      *Front
	cancel     context.CancelFunc
	input      chan []byte
	interrupt  chan func(sent bool)
	asked      time.Time
	generation atomic.Int64  // of its packages
	leased     chan struct{} // closed when it has a worker
	waited     time.Duration // for that; set before leased is closed
	done       chan struct{} // closed when it has ended; result and err are set before
	result     pool.Result
	err        error
	ending     sync.Once // its end is about to come

	// mu guards out, which both streams write to.
	mu  sync.Mutex
	out *cellOutput // of the cell that runs, or ran last; nil before the first
	why string      // it was ended by us; "" when it was not
}

// startProcess asks for a worker, whose slot the caller has taken. The process ends by itself, or by end.
func (f *Front) startProcess() *process {
	ctx, cancel := context.WithCancel(f.ctx)
	p := &process{front: f, cancel: cancel, input: make(chan []byte), interrupt: make(chan func(bool)), asked: time.Now(),
		leased: make(chan struct{}), done: make(chan struct{})}
	var once sync.Once
	in := operation.SessionInput{
		ID: operation.NewID(), Driver: f.driver.program(), Input: p.input, Interrupt: p.interrupt,
		Stdout: func(b []byte) { p.write(func(o *cellOutput) *cellStream { return o.stdout }, b) },
		Stderr: func(b []byte) { p.write(func(o *cellOutput) *cellStream { return o.stderr }, b) },
		Leased: func(generation int) {
			p.generation.Store(int64(generation))
			once.Do(func() {
				p.waited = time.Since(p.asked)
				close(p.leased)
			})
		},
	}
	f.work.Go(func() {
		defer f.compileDriver() // while nobody waits for a process
		p.result, p.err = f.ex.Session(ctx, in)
		p.finish()
		p.end("") // or it has counted as one that will
		f.o.Slots.ending.Add(-1)
		f.o.Slots.give()
		close(p.done)
	})
	return p
}

// write passes what the process says to the cell that it belongs to. What comes between cells is the last one's: of a
// thread, or of another process.
func (p *process) write(stream func(*cellOutput) *cellStream, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		stream(p.out).write(b)
	}
}

// hear shows the rest of what the last cell has said, and makes next the one that is heard.
func (p *process) hear(next *cellOutput) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		next.follow(p.out)
	}
	p.out = next
}

// finish shows the rest of what the last cell has said. Nothing more will come.
func (p *process) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		p.out.finish()
	}
}

// end ends the process at once, and returns before it is gone. why completes "the process …"; the first one counts.
func (p *process) end(why string) {
	p.ending.Do(func() {
		p.mu.Lock()
		p.why = why
		p.mu.Unlock()
		p.front.o.Slots.ending.Add(1)
		p.cancel()
	})
}

// ended says whether the process is gone.
func (p *process) ended() bool { return isClosed(p.done) }

// hasWorker says whether it is, or was, more than a wish.
func (p *process) hasWorker() bool { return isClosed(p.leased) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fate says why a process has ended, to complete "the process …". Preconditions: it has.
func (p *process) fate() string {
	p.mu.Lock()
	why := p.why
	p.mu.Unlock()
	switch {
	case why != "":
		return why
	case errors.Is(p.err, pool.ErrWorkerLost):
		return "was lost, through no fault of the code"
	case errors.Is(p.err, pool.ErrNotStarted):
		return "could not be started, so nothing of the code ran"
	case p.err != nil:
		return "was ended"
	}
	switch p.result.Status {
	case pool.StatusTimeout:
		return fmt.Sprintf("was ended after %s, the longest that one lives", operation.MaxSession)
	case pool.StatusMemoryLimit:
		return "used more memory than limits memory allows and was ended"
	case pool.StatusOutputLimit:
		return "wrote an absurd amount of output and was ended"
	case pool.StatusKilled:
		return fmt.Sprintf("was ended by a signal, exit code %d", p.result.ExitCode)
	default:
		return fmt.Sprintf("ended with exit code %d", p.result.ExitCode)
	}
}

// signal sends an interrupt and returns when that is done, so that it cannot come in the next cell.
func (p *process) signal() {
	done := make(chan struct{})
	told := func(sent bool) {
		if !sent {
			p.front.o.Logger.Warn("a cell could not be interrupted, since its process may not be signalled")
		}
		close(done)
	}
	select {
	case p.interrupt <- told:
		<-done
	case <-p.done:
	}
}

// cellEnd is how a cell ended.
type cellEnd struct {
	// died says that the process ended, and the cell with it, if it had begun.
	died, begun           bool
	timedOut, interrupted bool
	took                  time.Duration
	// said is the exception that ended the code, nil for none.
	said                     *cellFailure
	stdoutBytes, stderrBytes int
}

// run runs a cell and returns when it, or the process, has ended. The cell is interrupted when it has run too long or when it
// is told to, and its process is ended when it goes on after that, or when the cell's context ends.
func (p *process) run(c *cell, out *cellOutput, frame []byte) (end cellEnd) {
	p.hear(out)
	input, begun, leased, cancelled := p.input, out.begun, p.leased, c.ctx.Done()
	began := time.Now()
	var late, kill <-chan time.Time
	stop := func() {
		if !p.hasWorker() {
			p.end("")
			return
		}
		if kill == nil {
			kill = time.After(p.front.o.interruptGrace)
		}
		if isClosed(out.begun) { // else when it begins: now the driver would not know what it is for
			p.signal()
		}
	}
	for over := false; !over; {
		select {
		case <-leased:
			leased, began, late = nil, time.Now(), time.After(p.front.o.Timeout)
		case input <- frame:
			input = nil
		case <-begun:
			begun = nil
			if kill != nil {
				stop()
			}
		case <-late:
			late, end.timedOut = nil, true
			stop()
		case <-c.interrupts:
			end.interrupted = true
			stop()
		case <-kill:
			p.end("was ended, since its cell went on after an interrupt")
		case <-cancelled:
			cancelled = nil
			p.end("was ended")
		case <-out.ended:
			over = true
		case <-p.done:
			over, end.died = true, true
		}
	}
	end.took = time.Since(began)
	end.begun = isClosed(out.begun)
	end.died = end.died && !isClosed(out.ended) // else it ended after the cell
	p.mu.Lock()                                 // late output may come at any time
	defer p.mu.Unlock()
	out.settle()
	end.said, end.stdoutBytes, end.stderrBytes = out.failure, out.stdout.bytes, out.stderr.bytes
	return end
}
