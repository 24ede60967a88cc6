package pool

import (
	"errors"
	"fmt"
)

// Errors of Execute. They are about the pool or the request; a failure of user code is not an error but a Result. When the caller's
// context ends first, Execute returns the context's own error.
var (
	// ErrQueueFull means that Config.Queue requests were waiting already.
	ErrQueueFull = errors.New("the queue is full")
	// ErrAcquireTimeout means that no worker became free within Config.AcquireTimeout.
	ErrAcquireTimeout = errors.New("no worker became free in time")
	// ErrClosed means that the pool is draining or closed.
	ErrClosed = errors.New("the pool is shutting down")
	// ErrNotStarted means that no worker could be started, so none of the code ran. The error that it wraps says why.
	ErrNotStarted = errors.New("no worker could be started for the code, and nothing of it ran")
	// ErrWorkerLost means that the worker was lost through no fault of its code, for example because its template died. Some of the
	// code may have run.
	ErrWorkerLost = errors.New("the worker was lost while the code ran")
)

// PackagesDirError means that user code could not read packages in Config.PackagesDir: Caddy is root and there are no namespaces, so
// programs run as another user, who may not enter the directory.
type PackagesDirError struct {
	// Dir is Config.PackagesDir.
	Dir string
	// Closed is the first directory on the way to Dir, or Dir itself, that other users may not enter.
	Closed string
}

func (e *PackagesDirError) Error() string {
	return fmt.Sprintf("packages in %s cannot be used as root without namespaces: the sandbox's unprivileged id may not enter %s; "+
		"set packages data_dir to a directory that everybody may read, or packages off", e.Dir, e.Closed)
}
