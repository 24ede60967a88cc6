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
	// packages that it has (see Pool.Generation). It must not block. It is called again for the next worker when the first
	// one had died while it was parked, or could not be started.
	Leased func(generation int)
	// Interrupt, when not nil, sends SIGINT to the code for each function received, and to the processes of its group where the
	// kernel can (Linux 6.9), and then calls the function, which must not block: sent is false where no signal could be sent
	// safely. Nothing is received once the code has ended. Nil or closed: never.
	Interrupt <-chan func(sent bool)
	// Stdout and Stderr, when not nil, are called with all of standard output and standard error as it is read, whatever Config.Output
	// is. Each is called by one goroutine at a time, but the two may run at the same time. Neither is called after Execute has returned.
	// They must not block, and must not keep their argument.
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
	StatusKilled      Status = "killed"       // ended by signal N, exit code 128+N; or for its files in scratch, exit code 137
)

// Statuses lists every Status, in the order of the documentation.
var Statuses = []Status{StatusOK, StatusError, StatusTimeout, StatusMemoryLimit, StatusOutputLimit, StatusKilled}

// Result is what an execution did.
type Result struct {
	Stdout, Stderr string
	// ExitCode is the exit status as a shell reports it: 128+N after signal N; see the statuses for 124 and 137.
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
	// PeakMemory is the most memory that was seen, in bytes: the peak of the main process, or of all processes when the monitor looked.
	PeakMemory int64
	// Processes is the largest number of processes seen at once. It is 0 for an execution that ended before the monitor first looked.
	Processes int
	// QueueTime is the wait for a worker.
	QueueTime time.Duration
}
