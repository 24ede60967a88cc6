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

// shortRun is how long a run's output may wait in its pipes, which hold 64 KiB: a program that is over by then has cost no
// wake-up of ours. One that fills a pipe sooner waits for us that long, once.
const shortRun = 3 * time.Millisecond

// forkingTime is how long a worker that is forked for a request counts as being forked, and its output may wait, unless its run is
// over before. After a shorter time a busy machine would begin to fork the next ones while the first are not done, and slow all of them.
const forkingTime = 8 * time.Millisecond

// readyGrace is how long the end of a run waits for a worker that is still being forked, so that it can be ended by itself. After
// that its lane is ended with it: neither a time limit nor a caller who leaves waits for a lane that hangs.
const readyGrace = 250 * time.Millisecond

// execution is one run of a request in the worker that was leased for it. Its goroutines, in streams, end when the worker has
// and the run is collected.
type execution struct {
	pool    *Pool
	worker  *worker
	request Request
	begin   time.Time

	stdout, stderr *capture
	out, errs      *os.File     // the pipes, once the run is no longer a short one
	unasked        atomic.Int64 // bytes of output since the run began, or since the last piece of input
	streams        sync.WaitGroup
	stopFeeding    func()
	ready          chan struct{} // closed once awaitReady has returned, where that is waited for while the run goes on
}

// run gives the request to a leased worker and waits for the end of both. It calls given once the worker has the code. started says
// whether some of that may have run; if not, the error says why.
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
		err = context.Cause(ctx) // also where its lane had to be ended with it
	}
	return result, true, err
}

// feed begins to write to standard input what comes for it.
func (e *execution) feed() {
	w := e.worker
	w.session.Store(true)
	stdin := take(&w.stdin)
	e.streams.Go(func() { feed(stdin, e.request.Input, w.dead, func() { e.unasked.Store(0) }) })
	// A process that has escaped may hold the other end of the pipe, full, and nobody reads it.
	e.stopFeeding = func() { _ = stdin.SetWriteDeadline(time.Now()) }
}

// await returns when the worker has ended, and sees to that when its time is over or ctx is.
func (e *execution) await(ctx context.Context) {
	readAfter := shortRun
	switch {
	case e.request.Input != nil:
		readAfter = 0 // somebody waits for what it writes
	case e.worker.awaitReady != nil:
		readAfter = forkingTime
	}
	alarm := time.NewTimer(min(readAfter, e.request.Timeout)) // first for when output is read, then for the time limit
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

// end ends the worker for a reason, and returns when it has ended.
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
	<-w.dead // endWorker sees to it
	if e.ready != nil {
		w.channel.close() // what the worker has said does not matter any more, and somebody else may hold its end
	}
}

// watchReady waits, beside the run, until the worker of a request that had it before it was forked is ready, and ends it if it does
// not get so.
func (e *execution) watchReady() {
	if e.ready != nil {
		return
	}
	e.ready = make(chan struct{})
	w := e.worker
	w.channel.pollable() // from here on it can be closed while somebody reads
	e.streams.Go(func() {
		defer close(e.ready)
		if w.awaitReady() != nil {
			e.pool.end(w, ReasonBootFailed)
		}
	})
}

// read begins to read output while the run goes on, as a run that is not a short one needs.
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

// collect takes what lies in the pipes of a worker that has ended, and ends what was begun for it. Others may still hold the
// other ends, what the lane is about to end or what has escaped, and nobody waits for these.
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

// readyError says why a worker that was forked for its request never was ready. It is nil when it was, and when it was ended for
// another reason. It also counts the ends of such workers, which are not known before.
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
		return fmt.Errorf("%w: %w", ErrWorkerLost, err) // a process of which we know that little may have run the code
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

// start gives a worker its request, and makes it first where that is still to be done.
func (e *execution) start() error {
	p, w, req := e.pool, e.worker, e.request
	if w.awaitReady != nil {
		theirs, err := w.open()
		if err != nil {
			p.takeBack(w) // its lane knows nothing of it, and serves others
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
	return w.awaitReady() // before the first input is taken: should this worker fail, another one could not have it again
}

// notStarted is what the request of a worker is told that ended without it.
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
