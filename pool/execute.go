package pool

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// shortRun is how long a run's output may wait in its pipes, which hold 64 KiB: a program that is over by then has cost no
// wake-up of ours. One that fills a pipe sooner waits for us that long, once.
const shortRun = 3 * time.Millisecond

// makingTime is how long a worker that is made for a request counts as being made, and its output may wait, unless its run is over
// before. With less, runs that get in each other's way would let in ever more.
const makingTime = 8 * time.Millisecond

// handOvers bounds how often a request is given to another worker because the one it got had died while parked.
const handOvers = 3

// Execute runs req in a fresh worker. The error is nil whenever the code ran, whatever it did; otherwise it is one of
// this package's errors, or ctx's when the caller gave up, in which case the worker has ended.
func (p *Pool) Execute(ctx context.Context, req Request) (Result, error) {
	queued := time.Now()
	again := false
	for try := 1; ; again = true {
		w, err := p.acquire(ctx, again)
		wait := time.Since(queued)
		p.cfg.Metrics.Acquired(wait)
		if err != nil {
			return Result{}, err
		}
		if req.Leased != nil {
			req.Leased(w.cohort().generation())
		}
		result, started, err := p.run(ctx, w, req)
		p.running.Done()
		if err != nil && !started && try < handOvers && ctx.Err() == nil {
			if err != errLaneLeft { //nolint:errorlint // a sentinel of ours
				try++
			}
			continue // it never had the code
		}
		result.Usage.QueueTime = wait
		return result, err
	}
}

// errLaneLeft is the error of a run whose lane went instead of making its worker, as it may.
var errLaneLeft = fmt.Errorf("%w: its lane left", ErrWorkerLost)

// acquire leases a worker, waiting for it in FIFO order, or as the first where the caller has waited before. On success it
// has added one to p.running.
func (p *Pool) acquire(ctx context.Context, again bool) (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	if (p.waiters.Len() == 0 || again) && len(p.current.idle) > 0 && len(p.leased) < p.cfg.Max {
		w := p.leaseLocked()
		p.running.Add(1)
		p.refillLocked(p.current)
		p.mu.Unlock()
		return w, nil
	}
	if p.waiters.Len() >= p.cfg.Queue && !again {
		p.mu.Unlock()
		return nil, ErrQueueFull
	}
	me := &waiter{worker: make(chan *worker, 1)}
	element := p.waiters.PushBack(me)
	if again {
		p.waiters.MoveToFront(element)
	}
	p.running.Add(1)
	p.refillLocked(p.current)
	p.mu.Unlock()

	timer := time.NewTimer(p.cfg.AcquireTimeout)
	defer timer.Stop()
	var err error
	select {
	case w, ok := <-me.worker:
		if ok {
			return w, nil
		}
		p.running.Done()
		return nil, ErrClosed
	case <-timer.C:
		err = ErrAcquireTimeout
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	select {
	case w, ok := <-me.worker:
		// It came while we gave up. A worker that was leased is not put back, so it is used or ended.
		p.mu.Unlock()
		if ok && ctx.Err() == nil {
			return w, nil
		}
		if ok {
			p.end(w, ReasonCancelled)
			<-w.dead
			w.closePipes()
		}
	default:
		p.waiters.Remove(element)
		p.mu.Unlock()
	}
	p.running.Done()
	return nil, err
}

// end records why a worker ends and kills its tree.
func (p *Pool) end(w *worker, reason Reason) {
	p.mu.Lock()
	first := w.state != StateDraining && w.state != StateDead
	p.endLocked(w, reason)
	p.mu.Unlock()
	if first {
		w.lane.endWorker(w)
	}
}

// run gives the request to a leased worker and waits for the end of both. started says whether the worker had the code.
func (p *Pool) run(ctx context.Context, w *worker, req Request) (result Result, started bool, err error) {
	defer w.closePipes()
	if err := p.start(w, req); err != nil {
		p.end(w, ReasonCrashed)
		<-w.dead
		return Result{}, false, p.notStarted(w)
	}
	begin := time.Now()
	stdout, stderr := newCapture(p.cfg.Output), newCapture(p.cfg.Output)
	stdout.tee, stderr.tee = req.Stdout, req.Stderr
	var unasked atomic.Int64 // bytes of output since the run began, or since the last piece of input
	var streams sync.WaitGroup
	var out, errs *os.File // once the run is no longer a short one
	readAfter, stopFeeding := shortRun, func() {}
	if w.born != nil {
		readAfter = makingTime
	}
	if req.Input != nil {
		readAfter = 0 // somebody waits for what it writes
		w.session.Store(true)
		stdin := take(&w.stdin)
		streams.Go(func() { feed(stdin, req.Input, w.dead, func() { unasked.Store(0) }) })
		// A process that has escaped may hold the other end of the pipe, full, and nobody reads it.
		stopFeeding = func() { _ = stdin.SetWriteDeadline(time.Now()) }
	}

	alarm := time.NewTimer(min(readAfter, req.Timeout)) // the run is not a short one, and then its time is over
	defer alarm.Stop()
	interrupt := req.Interrupt
	for ended := false; !ended; {
		select {
		case <-w.dead:
			ended = true
		case <-alarm.C:
			if out != nil {
				w.settle()
				p.end(w, ReasonTimeLimit)
				<-w.dead // endWorker sees to it
				continue
			}
			alarm.Reset(req.Timeout - time.Since(begin))
			if w.born != nil {
				p.made(w)
				streams.Go(func() {
					if w.born() != nil {
						p.end(w, ReasonBootFailed)
					}
				})
			}
			over := func() { p.end(w, ReasonOutputLimit) }
			out, errs = take(&w.stdout), take(&w.stderr)
			defer out.Close()
			defer errs.Close()
			streams.Go(func() { drain(out, stdout, &unasked, p.cfg.OutputKill, over) })
			streams.Go(func() { drain(errs, stderr, &unasked, p.cfg.OutputKill, over) })
		case <-ctx.Done():
			w.settle()
			p.end(w, ReasonCancelled)
			<-w.dead
		case told, more := <-interrupt:
			if !more {
				interrupt = nil
			} else {
				told(w.interrupt())
			}
		}
	}
	result.ExecutionTime = time.Since(begin)
	stopFeeding()
	if out == nil {
		streams.Wait()
		collect(w.stdout, stdout)
		collect(w.stderr, stderr)
	} else {
		// Others may still hold the other ends: what the lane is about to end, or what has escaped. Nobody waits for these.
		_ = out.SetReadDeadline(time.Now())
		_ = errs.SetReadDeadline(time.Now())
		streams.Wait()
		collectFile(out, stdout)
		collectFile(errs, stderr)
	}

	if w.born != nil {
		if err := w.born(); err != nil && w.reason != ReasonCancelled && w.reason != ReasonShutdown {
			if w.reason == ReasonServed {
				p.cfg.Metrics.WorkerExited(ReasonBootFailed)
			}
			p.bootFailed(w, err)
			return Result{}, false, p.notStarted(w)
		}
		if w.reason == ReasonServed {
			p.cfg.Metrics.WorkerExited(ReasonServed)
		}
	}
	result.OutputBytes = stdout.bytes + stderr.bytes
	if w.reason == ReasonScratchLimit {
		stderr.write(fmt.Appendf(nil, "Killed: the program's files held more than %d MiB, or were too many or nested too deep.\n", p.cfg.Scratch>>20))
	}
	var cutOut, cutErr bool
	result.Stdout, cutOut = stdout.text()
	result.Stderr, cutErr = stderr.text()
	result.Truncated = cutOut || cutErr
	result.Usage.CPUTime = w.exit.cpu
	result.Usage.PeakMemory = max(w.exit.maxRSSBytes, w.peak.Load())
	result.Status, result.ExitCode, err = outcome(w.reason, w.exit)
	if err == nil && w.reason == ReasonCancelled {
		err = context.Cause(ctx)
	}
	return result, true, err
}

// start gives a worker its request, and makes it first where that is still to be done.
func (p *Pool) start(w *worker, req Request) error {
	if w.born != nil {
		theirs, err := w.open()
		if err != nil {
			return err
		}
		if err := w.ask("work", theirs, p.processLimit()); err != nil {
			return err
		}
	}
	if err := w.start(req); err != nil || w.born == nil || req.Input == nil {
		return err
	}
	return w.born() // before the first input is taken, which another worker could not have again
}

// notStarted is what the request of a worker is told that ended without it.
func (p *Pool) notStarted(w *worker) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.lane.leaving {
		return errLaneLeft
	}
	return ErrWorkerLost
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
