package pool

import "time"

// Request is one execution.
type Request struct {
	// ID names the execution in logs.
	ID string
	// Code is Python source; it runs as __main__.
	Code string
	// Stdin is what the code reads from standard input; empty means end of file at once. Not used when Input is set.
	Stdin string
	// Input, when not nil, makes the execution a session: each piece that is received goes to standard input as it comes, and
	// end of file when the channel is closed. A sender must also wait for the end of Execute, after which nothing is
	// received. Each piece begins a count of its own for Config.OutputKill, and must not be changed once sent.
	Input <-chan []byte
	// Timeout is the wall-clock bound, from the moment the worker has the code, of a session as a whole. It must be positive.
	Timeout time.Duration
	// Leased, when not nil, is called when a worker has been found, before it gets the code, with the number of the set of
	// packages that it has (see Pool.Generation). It must not block. It is called again when that worker had died while parked.
	Leased func(generation int)
	// Interrupt, when not nil, sends SIGINT to the code for each function received, and to the processes of its group where the
	// kernel can (Linux 6.9), and then calls the function, which must not block: sent is false where no signal could be sent
	// safely. Nothing is received once the code has ended. Nil or closed: never.
	Interrupt <-chan func(sent bool)
	// Stdout and Stderr, when not nil, get standard output and standard error as they are read, all of it, whatever
	// Config.Output says. Each is called from one goroutine at a time, both at the same time perhaps, and not after Execute
	// has returned. They must not block, and must not keep their argument.
	Stdout, Stderr func([]byte)
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
	// Processes is the largest number of processes seen at once, 0 of an execution that was over before anybody looked.
	Processes int
	// QueueTime is the wait for a worker.
	QueueTime time.Duration
}
