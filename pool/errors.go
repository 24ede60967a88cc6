package pool

import (
	"errors"
	"fmt"
)

// Errors of Execute. What user code did is a Result; these are the pool's or the caller's. A context's own error is
// returned as it is when the caller gives up.
var (
	// ErrQueueFull means that Config.Queue requests were waiting already.
	ErrQueueFull = errors.New("the queue is full")
	// ErrAcquireTimeout means that no worker became free within Config.AcquireTimeout.
	ErrAcquireTimeout = errors.New("no worker became free in time")
	// ErrClosed means that the pool is draining or closed.
	ErrClosed = errors.New("the pool is shutting down")
	// ErrNotStarted means that workers could not be started for the code, so that nothing of it ran. What it wraps says why.
	ErrNotStarted = errors.New("no worker could be started for the code, and nothing of it ran")
	// ErrWorkerLost means that the worker ended through no fault of its code, such as the death of its template, when that may have run.
	ErrWorkerLost = errors.New("the worker was lost while the code ran")
)

// PackagesDirError means that programs could not read what is installed in Config.PackagesDir: they have another id than
// Caddy, and no root of their own.
type PackagesDirError struct {
	Dir string
	// Closed is Dir or a directory above it.
	Closed string
}

func (e *PackagesDirError) Error() string {
	return fmt.Sprintf("packages in %s cannot be used as root without namespaces: the sandbox's unprivileged id may not enter %s; "+
		"set packages data_dir to a directory that everybody may read, or packages off", e.Dir, e.Closed)
}
