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

// process is the session, in one worker, in which the cells of a kernel run one at a time. It keeps their names, files and figures,
// and holds a slot until it has ended. Its methods are safe for concurrent use, except run, which runs one cell at a time.
type process struct {
	front      *Front
	cancel     context.CancelFunc
	input      chan []byte
	interrupt  chan func(sent bool)
	asked      time.Time     // when a worker was asked for
	generation atomic.Int64  // of the packages in its worker
	leased     chan struct{} // closed when it has a worker
	waited     time.Duration // how long it waited for the worker; set before leased is closed
	done       chan struct{} // closed when it has ended; result and err are set before
	result     pool.Result
	err        error
	ending     sync.Once // the first call of end

	// mu guards out, which both streams write to, and why.
	mu  sync.Mutex
	out *cellOutput // of the cell that runs, or ran last; nil before the first
	why string      // the reason that end was called with
}

// startProcess starts a process, which then waits for a worker. The caller must have taken a slot, which the process gives back when
// it has ended: by itself, by end, or when the front is closed.
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
		defer f.compileDriver() // after the first process has ended, so that no cell waits for it
		p.result, p.err = f.ex.Session(ctx, in)
		p.finish()
		p.end("") // counts it in Slots.ending if it was not yet, for the subtraction below
		f.o.Slots.ending.Add(-1)
		f.o.Slots.give()
		close(p.done)
	})
	return p
}

// write passes output of the process to the running cell. Output between cells, of a thread or a child process, goes to the cell
// that ran last.
func (p *process) write(stream func(*cellOutput) *cellStream, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		stream(p.out).write(b)
	}
}

// hear shows the rest of the last cell's output, and makes next the output that write writes to.
func (p *process) hear(next *cellOutput) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		next.follow(p.out)
	}
	p.out = next
}

// finish shows the rest of the last cell's output, when the process has ended.
func (p *process) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		p.out.finish()
	}
}

// end kills the process, and returns before it has ended. why completes the sentence "the process …" for clients. Only the first
// call counts.
func (p *process) end(why string) {
	p.ending.Do(func() {
		p.mu.Lock()
		p.why = why
		p.mu.Unlock()
		p.front.o.Slots.ending.Add(1)
		p.cancel()
	})
}

// ended reports whether the process has ended.
func (p *process) ended() bool { return isClosed(p.done) }

// hasWorker reports whether the process has, or had, a worker.
func (p *process) hasWorker() bool { return isClosed(p.leased) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fate returns why the process ended, as the rest of a sentence "the process …". Preconditions: it has ended.
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

// signal interrupts the running cell. It returns when the signal has been sent, so that it cannot hit the next cell.
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
	// died means that the process ended before the cell did, and begun that the driver had begun the cell.
	died, begun           bool
	timedOut, interrupted bool
	took                  time.Duration
	// said is the exception that ended the code, as the driver reports it; nil for none.
	said                     *cellFailure
	stdoutBytes, stderrBytes int
}

// run sends a cell to the driver and returns when the cell or the process has ended. It interrupts the cell at the timeout and for
// each interrupt. It ends the process when the cell still runs interruptGrace after the first of these, when an interrupt comes before
// the process has a worker, or when c.ctx ends.
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
		if isClosed(out.begun) { // before that the driver ignores signals; stop is called again then
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
	end.died = end.died && !isClosed(out.ended) // the process may have ended right after the cell
	p.mu.Lock()                                 // threads of the cell may still write
	defer p.mu.Unlock()
	out.settle()
	end.said, end.stdoutBytes, end.stderrBytes = out.failure, out.stdout.bytes, out.stderr.bytes
	return end
}
