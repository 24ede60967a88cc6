package install

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// maxShared bounds the installs that wait or run.
const maxShared = 64

// sharedInstall is one install for all callers that request the same at the same time. The mutex of Installs guards waiting.
type sharedInstall struct {
	waiting int // how many callers wait
	cancel  context.CancelFunc
	done    chan struct{} // closed once result and err are set
	result  Result
	err     error

	mu        sync.Mutex
	last      Progress
	listeners []*func(Progress)
}

// tell passes progress on to all waiting callers.
func (f *sharedInstall) tell(progress Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = progress
	for _, listener := range f.listeners {
		(*listener)(progress)
	}
}

// Install installs a package for every later execution, after the installs that were requested before it. Callers that ask for the same
// package while it is being installed share one install. The error is nil whenever the Result says what the caller can do. Otherwise
// it is one of this package's errors, that of ctx, or an internal one. An install ends, without changing anything, once all of its
// callers have given up.
func (s *Installs) Install(ctx context.Context, req Request) (Result, error) {
	begin := time.Now()
	if s.host.Store == nil {
		return Result{}, ErrNoPackages
	}
	key := fmt.Sprintf("%s %p %t", requirement(req.Name, req.Extras, req.Specifier), req.Index, req.BuildSource)
	s.mu.Lock()
	f := s.shared[key]
	switch {
	case s.closed || s.draining:
		s.mu.Unlock()
		return Result{}, ErrClosed
	case f == nil && len(s.shared) >= maxShared:
		s.mu.Unlock()
		return Result{}, ErrQueueFull
	case f == nil:
		f = s.startLocked(key, req)
	}
	f.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.waiting--; f.waiting == 0 {
			f.cancel()
			if s.shared[key] == f {
				delete(s.shared, key) // the next caller starts a new one
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
			f.listeners = slices.DeleteFunc(f.listeners, func(other *func(Progress)) bool { return other == listener })
		}()
	}
	select {
	case <-f.done:
		result := f.result
		result.Duration = time.Since(begin)
		return result, f.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// Drain refuses new installs, and ends those that have not ended within Host.Grace. It returns at once. A server calls it before it waits
// for its requests to end; Close then ends all that is left.
func (s *Installs) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.draining = true
		time.AfterFunc(s.host.Grace, func() { close(s.graceOver) })
	}
}

// installSafely turns a panic into an error, so that data of an index or a wheel cannot end the server.
func (s *Installs) installSafely(ctx context.Context, req Request) (result Result, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			s.host.Logger.Error("an install panicked", "package", req.Name, "panic", panicked, "stack", string(debug.Stack()))
			err = fmt.Errorf("bug: an install panicked: %v", panicked)
		}
	}()
	return s.install(ctx, req)
}

// startLocked starts an install. It ends early when Installs is closed, or when no caller waits for it any more.
func (s *Installs) startLocked(key string, req Request) *sharedInstall {
	ctx, cancel := context.WithCancel(context.Background())
	f := &sharedInstall{cancel: cancel, done: make(chan struct{})}
	s.shared[key] = f
	req.Progress = f.tell
	s.background.Go(func() {
		defer cancel()
		result, err := s.installSafely(ctx, req)
		if refused, ok := errors.AsType[*refusal](err); ok {
			result, err = Result{Status: refused.status, Message: refused.message}, nil
		}
		s.mu.Lock()
		if (s.closed || s.draining) && err != nil {
			err = ErrClosed
		}
		if s.shared[key] == f {
			delete(s.shared, key)
		}
		f.result, f.err = result, err
		close(f.done)
		s.mu.Unlock()
	})
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-s.graceOver:
			cancel()
		case <-ctx.Done(): // the install has ended, or all its callers have given up
		}
	}()
	return f
}
