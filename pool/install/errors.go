package install

import "errors"

// Errors of Install and of what it needs.
var (
	// ErrQueueFull means that too many installs wait or run already.
	ErrQueueFull = errors.New("too many installs wait already")
	// ErrClosed means that no more installs are taken.
	ErrClosed = errors.New("installs are not taken any more")
	// ErrNoPackages means that the pool has no store of packages.
	ErrNoPackages = errors.New("nothing can be installed here")
	// ErrNoPip means that the interpreter has no pip, nor the wheel of it that ensurepip brings.
	ErrNoPip = errors.New("the server's Python has no pip, so nothing can be installed: the operator can add it with python -m ensurepip, or by the system's package python3-pip")
)
