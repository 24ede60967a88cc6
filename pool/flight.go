package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// maxFlights bounds the installs that wait or run.
const maxFlights = 64

// flight is one install for all who ask for the same at the same time. The pool's mutex guards waiting.
type flight struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{} // closed once result and err are set
	result  InstallResult
	err     error

	mu        sync.Mutex
	last      InstallProgress
	listeners []*func(InstallProgress)
}

// tell passes progress on to everyone who waits.
func (f *flight) tell(progress InstallProgress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = progress
	for _, listener := range f.listeners {
		(*listener)(progress)
	}
}

// Install installs a package for every later execution, after the installs that were asked for before. Who asks for the
// same while it is under way shares it. The error is nil whenever the install ended in a way that its caller can act on;
// otherwise it is one of this package's errors, ctx's when the caller gave up, or ours. An install that nobody waits for any
// more is given up, and nothing has changed.
func (p *Pool) Install(ctx context.Context, req InstallRequest) (InstallResult, error) {
	begin := time.Now()
	if p.store == nil {
		return InstallResult{}, ErrNoPackages
	}
	key := fmt.Sprintf("%s %p %t", requirement(req.Name, req.Extras, req.Specifier), req.Index, req.BuildSource)
	p.mu.Lock()
	f := p.flights[key]
	switch {
	case p.closed || p.endsInstalls:
		p.mu.Unlock()
		return InstallResult{}, ErrClosed
	case f == nil && len(p.flights) >= maxFlights:
		p.mu.Unlock()
		return InstallResult{}, ErrQueueFull
	case f == nil:
		f = p.takeOffLocked(key, req)
	}
	f.waiting++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if f.waiting--; f.waiting == 0 {
			f.cancel()
			if p.flights[key] == f {
				delete(p.flights, key) // who asks now wants a new one
			}
		}
	}()

	if req.Progress != nil {
		listener := &req.Progress
		f.mu.Lock()
		f.listeners = append(f.listeners, listener)
		if f.last.Phase != "" {
			req.Progress(f.last)
		}
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.listeners = slices.DeleteFunc(f.listeners, func(other *func(InstallProgress)) bool { return other == listener })
		}()
	}
	select {
	case <-f.done:
		result := f.result
		result.Duration = time.Since(begin)
		return result, f.err
	case <-ctx.Done():
		return InstallResult{}, context.Cause(ctx)
	}
}

// EndInstalls takes no more installs, and gives those up that are not over within Config.ShutdownGrace. It returns at once.
// Close does the same, and this is for who has to wait for requests to end before that.
func (p *Pool) EndInstalls() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.endsInstalls {
		p.endsInstalls = true
		time.AfterFunc(p.cfg.ShutdownGrace, func() { close(p.installsEnd) })
	}
}

// installSafely makes an error of a panic: what an index or a wheel holds is not to end the server.
func (p *Pool) installSafely(ctx context.Context, req InstallRequest) (result InstallResult, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			p.log.Error("an install panicked", "package", req.Name, "panic", panicked, "stack", string(debug.Stack()))
			err = fmt.Errorf("bug: an install panicked: %v", panicked)
		}
	}()
	return p.install(ctx, req)
}

// takeOffLocked starts an install. It ends with the pool, or when nobody waits for it.
func (p *Pool) takeOffLocked(key string, req InstallRequest) *flight {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flight{cancel: cancel, done: make(chan struct{})}
	p.flights[key] = f
	req.Progress = f.tell
	p.background.Go(func() {
		defer cancel()
		result, err := p.installSafely(ctx, req)
		if refused, ok := errors.AsType[*refusal](err); ok {
			result, err = InstallResult{Status: refused.status, Message: refused.message}, nil
		}
		p.mu.Lock()
		if (p.closed || p.endsInstalls) && err != nil {
			err = ErrClosed
		}
		if p.flights[key] == f {
			delete(p.flights, key)
		}
		f.result, f.err = result, err
		close(f.done)
		p.mu.Unlock()
	})
	go func() {
		select {
		case <-p.closing:
			cancel()
		case <-p.installsEnd:
			cancel()
		case <-ctx.Done(): // it is over, or given up
		}
	}()
	return f
}
