package pool

import "time"

// Request is one execution.
type Request struct {
	// ID names the execution in logs.
	ID string
	// Code is Python source; it runs as __main__.
	Code string
	// Stdin is what the code reads from standard input; empty means end of file at once.
	Stdin string
	// Timeout is the wall-clock bound, from the moment the worker has the code. It must be positive.
	Timeout time.Duration
	// Leased, when not nil, is called when a worker has been found, before it gets the code. It must not block.
	Leased func()
	// Stdout, when not nil, gets standard output as it is read, all of it, whatever Config.Output says. It is called from
	// one goroutine at a time and not after Execute has returned. It must not block, and must not keep its argument.
	Stdout func([]byte)
}

// Status says how an execution ended. It is a fact about user code, never an error of ours.
type Status string

// The statuses an execution can end with.
const (
	StatusOK          Status = "ok"
	StatusError       Status = "error"        // exit code other than 0
	StatusTimeout     Status = "timeout"      // ended by the wall clock, exit code 124
	StatusMemoryLimit Status = "memory_limit" // ended by the memory monitor, exit code 137
	StatusOutputLimit Status = "output_limit" // ended after an absurd amount of output, exit code 137
	StatusKilled      Status = "killed"       // ended by a signal that was not ours, exit code 128+N
)

// Statuses lists every Status, in the order of the documentation.
var Statuses = []Status{StatusOK, StatusError, StatusTimeout, StatusMemoryLimit, StatusOutputLimit, StatusKilled}

// Result is what an execution did.
type Result struct {
	Stdout, Stderr string
	// ExitCode is what a shell would say.
	ExitCode int
	Status   Status
	// Truncated is true when output was left out.
	Truncated bool
	// ExecutionTime runs from the moment the worker has the code until it ended.
	ExecutionTime time.Duration
	Usage         Usage
	// OutputBytes counts what the code wrote, before truncation.
	OutputBytes int64
}

// Usage is what an execution cost.
type Usage struct {
	// CPUTime is user and system time of the main process and of the children it waited for.
	CPUTime time.Duration
	// PeakMemory is the largest resident size seen, in bytes.
	PeakMemory int64
	// QueueTime is the wait for a worker.
	QueueTime time.Duration
}
