package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// shortRun is how long after its start a run's output is first read. Pipes hold 64 KiB until then, and a program that ends sooner costs
// no wake-up for its output. A program that fills a pipe sooner is blocked until then, once.
const shortRun = 3 * time.Millisecond

// forkingTime replaces shortRun for a worker that is forked for a request that already has it. Until then, or until its run ends, the
// worker counts as being forked. With a shorter time a busy machine would begin further forks before the first are done, which slows
// all of them.
const forkingTime = 8 * time.Millisecond

// readyGrace is how long a run that is to be ended waits for a worker that is still being forked: once the worker is ready, its pid is
// known and it can be killed alone. After readyGrace its lane is killed with it, so that a lane that hangs delays neither the time
// limit nor a cancellation.
const readyGrace = 250 * time.Millisecond

// execution is one run of a request in the worker that was leased for it. The WaitGroup streams has its goroutines, which end when the
// worker has ended and collect is called.
type execution struct {
	pool    *Pool
	worker  *worker
	request Request
	begin   time.Time

	stdout, stderr *capture
	out, errs      *os.File     // the pipes of standard output and standard error; nil until read
	unasked        atomic.Int64 // bytes of output since the run began, or since the last piece of input
	streams        sync.WaitGroup
	stopFeeding    func()
	ready          chan struct{} // made by watchReady, and closed once awaitReady has returned; nil before
}

// run gives the request to a leased worker and waits until the worker has ended. It calls given once the worker has the code. started
// says whether some of the code may have run; if not, the error says why.
func (p *Pool) run(ctx context.Context, w *worker, req Request, given func()) (result Result, started bool, err error) {
	defer w.closePipes()
	e := &execution{pool: p, worker: w, request: req, stdout: newCapture(p.cfg.Output), stderr: newCapture(p.cfg.Output)}
	e.stdout.onOutput, e.stderr.onOutput = req.Stdout, req.Stderr
	if err := e.start(); err != nil {
		p.end(w, ReasonCrashed)
		<-w.dead
		return Result{}, false, p.notStarted(w, err)
	}
	given()
	if req.Input != nil {
		e.feed()
	}
	e.await(ctx)
	result.ExecutionTime = time.Since(e.begin)
	e.collect()
	if err := e.readyError(); err != nil {
		return Result{}, errors.Is(err, ErrWorkerLost), err
	}
	err = e.fill(&result)
	if w.reason == ReasonCancelled {
		err = context.Cause(ctx) // rather than ErrWorkerLost, which outcome returns when the lane had to be killed too
	}
	return result, true, err
}

// feed starts the goroutine that writes the request's Input to standard input.
func (e *execution) feed() {
	w := e.worker
	w.session.Store(true)
	stdin := take(&w.stdin)
	e.streams.Go(func() { feed(stdin, e.request.Input, w.dead, func() { e.unasked.Store(0) }) })
	// A process that outlives the worker may hold the read end of a full pipe without reading. The deadline ends the write.
	e.stopFeeding = func() { _ = stdin.SetWriteDeadline(time.Now()) }
}

// await returns when the worker has ended. It ends the worker when the time limit is over or ctx is done.
func (e *execution) await(ctx context.Context) {
	readAfter := shortRun
	switch {
	case e.request.Input != nil:
		readAfter = 0 // a client waits for the output of a session
	case e.worker.awaitReady != nil:
		readAfter = forkingTime
	}
	alarm := time.NewTimer(min(readAfter, e.request.Timeout)) // fires first to start reading, then at the time limit
	defer alarm.Stop()
	for interrupt := e.request.Interrupt; ; {
		select {
		case <-e.worker.dead:
			return
		case <-alarm.C:
			if e.out != nil {
				e.end(ReasonTimeLimit)
				return
			}
			alarm.Reset(e.request.Timeout - time.Since(e.begin))
			e.read()
		case <-ctx.Done():
			e.end(ReasonCancelled)
			return
		case told, more := <-interrupt:
			if !more {
				interrupt = nil
			} else {
				told(e.worker.interrupt())
			}
		}
	}
}

// end kills the worker, records the reason, and returns when the worker is dead.
func (e *execution) end(reason Reason) {
	w := e.worker
	if w.awaitReady != nil {
		e.watchReady()
		grace := time.NewTimer(readyGrace)
		defer grace.Stop()
		select {
		case <-e.ready:
		case <-w.dead:
		case <-grace.C:
		}
	}
	e.pool.end(w, reason)
	<-w.dead // endWorker makes sure of it, within killGrace
	if e.ready != nil {
		w.channel.close() // ends watchReady, even where another process still holds the worker's end
	}
}

// watchReady starts, once, a goroutine that waits until a worker that is forked for this request is ready. If the worker fails to boot,
// the goroutine ends it.
func (e *execution) watchReady() {
	if e.ready != nil {
		return
	}
	e.ready = make(chan struct{})
	w := e.worker
	w.channel.pollable() // so that it can be closed while the goroutine reads
	e.streams.Go(func() {
		defer close(e.ready)
		if w.awaitReady() != nil {
			e.pool.end(w, ReasonBootFailed)
		}
	})
}

// read starts to read output while the run goes on: the run has lasted longer than shortRun.
func (e *execution) read() {
	p, w := e.pool, e.worker
	if w.awaitReady != nil {
		p.forked(w)
		e.watchReady()
	}
	over := func() { p.end(w, ReasonOutputLimit) }
	e.out, e.errs = take(&w.stdout), take(&w.stderr)
	e.streams.Go(func() { drain(e.out, e.stdout, &e.unasked, p.cfg.OutputKill, over) })
	e.streams.Go(func() { drain(e.errs, e.stderr, &e.unasked, p.cfg.OutputKill, over) })
}

// collect reads what is left in the pipes of a worker that has ended, and ends the goroutines in streams. It does not wait for end of
// file: processes that the worker started may still hold the write ends until the lane kills them.
func (e *execution) collect() {
	if e.stopFeeding != nil {
		e.stopFeeding()
	}
	if e.out == nil {
		e.streams.Wait()
		collect(e.worker.stdout, e.stdout)
		collect(e.worker.stderr, e.stderr)
		return
	}
	_ = e.out.SetReadDeadline(time.Now())
	_ = e.errs.SetReadDeadline(time.Now())
	e.streams.Wait()
	collectFile(e.out, e.stdout)
	collectFile(e.errs, e.stderr)
	_ = e.out.Close()
	_ = e.errs.Close()
}

// readyError says why a worker that was forked for this request never became ready. It is nil when the worker did, and when it was
// ended for another reason. Only here is it known whether such a worker was served or failed to boot, so its end is counted here and
// not in exitedLocked.
func (e *execution) readyError() error {
	p, w := e.pool, e.worker
	if w.awaitReady == nil {
		return nil
	}
	err := w.awaitReady()
	switch {
	case w.reason == ReasonCancelled, w.reason == ReasonShutdown, w.reason == ReasonTimeLimit:
		return nil
	case err == nil:
		if w.reason == ReasonServed {
			p.cfg.Metrics.WorkerExited(ReasonServed)
		}
		return nil
	}
	if w.reason == ReasonServed {
		p.cfg.Metrics.WorkerExited(ReasonBootFailed)
	}
	p.bootFailed(w, err)
	if errors.Is(err, process.ErrProtocol) {
		return fmt.Errorf("%w: %w", ErrWorkerLost, err) // its ready message is not to be believed, so the code may have run
	}
	return p.notStarted(w, err)
}

// fill sets how the worker ended, what it wrote and what it used.
func (e *execution) fill(r *Result) (err error) {
	w := e.worker
	r.OutputBytes = e.stdout.bytes + e.stderr.bytes
	if w.reason == ReasonScratchLimit {
		e.stderr.write(fmt.Appendf(nil, "Killed: the program's files held more than %d MiB, or were too many or nested too deep.\n", e.pool.cfg.Scratch>>20))
	}
	var cutOut, cutErr bool
	r.Stdout, cutOut = e.stdout.text()
	r.Stderr, cutErr = e.stderr.text()
	r.Truncated = cutOut || cutErr
	r.Usage.CPUTime = w.exit.cpu
	r.Usage.PeakMemory = max(w.exit.maxRSSBytes, w.peak.Load())
	r.Usage.Processes = int(w.crowd.Load())
	r.Status, r.ExitCode, err = outcome(w.reason, w.exit)
	return err
}

// start sends the worker its request. A worker that was leased before it was forked is forked first.
func (e *execution) start() error {
	p, w, req := e.pool, e.worker, e.request
	if w.awaitReady != nil {
		theirs, err := w.open()
		if err != nil {
			p.takeBack(w) // the lane was not asked yet, so it can serve others
			return err
		}
		if err := w.ask("work", theirs, p.processLimit()); err != nil {
			return err
		}
	}
	e.begin = time.Now() // before the write: the program may be over before that returns
	if err := w.start(req); err != nil || w.awaitReady == nil || req.Input == nil {
		return err
	}
	// A session takes input only after its worker is ready: if the worker fails before, another one can still get all of the input.
	return w.awaitReady()
}

// notStarted returns the error for a request whose worker ended before it had the code.
func (p *Pool) notStarted(w *worker, reason error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.reason == reasonLaneLeft {
		reason = errLaneLeft
	}
	return fmt.Errorf("%w: %w", ErrNotStarted, reason)
}

// outcome turns the reason for which a worker ended and its exit status into what the caller is told.
func outcome(reason Reason, e exit) (Status, int, error) {
	switch reason {
	case ReasonTimeLimit:
		return StatusTimeout, 124, nil
	case ReasonMemoryLimit:
		return StatusMemoryLimit, 137, nil
	case ReasonOutputLimit:
		return StatusOutputLimit, 137, nil
	case ReasonScratchLimit:
		return StatusKilled, 137, nil
	case ReasonShutdown:
		return "", 0, ErrClosed
	default: // nothing of ours ended it: its exit status says why
	}
	switch {
	case e.lost:
		return "", 0, ErrWorkerLost
	case e.status.Signaled():
		return StatusKilled, 128 + int(e.status.Signal()), nil
	case e.status.Stopped(): // it let itself be traced, and the lane has killed it
		return StatusKilled, 137, nil
	case e.status.ExitStatus() == 0:
		return StatusOK, 0, nil
	default:
		return StatusError, e.status.ExitStatus(), nil
	}
}
