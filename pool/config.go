package pool

import (
	"cmp"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
)

// Isolation says how much confinement a pool insists on.
type Isolation string

const (
	// IsolationStrict starts only when every guarantee is held by a layer. The default.
	IsolationStrict Isolation = "strict"
	// IsolationBestEffort uses the layers that the system offers, and logs which guarantees no layer holds.
	IsolationBestEffort Isolation = "best_effort"
	// IsolationNone takes no namespaces, for development on systems that have none.
	IsolationNone Isolation = "none"
)

// Config says how many processes a pool has, and what each may do. The zero value of a field stands for the default that its comment
// names; Normalize fills the defaults in and refuses what cannot work.
type Config struct {
	// Python is the interpreter: a path, or a name that is looked up on PATH. Default: "python3". Shims (pyenv and
	// kin) and virtual environments are resolved to the real interpreter by asking it.
	Python string `json:"python"`
	// Preload lists modules that the template imports, so that workers have them at no cost.
	Preload []string `json:"preload"`
	// PythonPath lists extra import roots, absolute, read-only to user code.
	PythonPath []string `json:"python_path"`

	// Idle is how many workers are kept parked and ready. Default: 2 × cores.
	Idle int `json:"idle"`
	// Max is how many requests execute at once. Default: 4 × cores.
	Max int `json:"max"`
	// Queue is how many requests wait beyond Max. Default: 256.
	Queue int `json:"queue"`
	// AcquireTimeout bounds the wait for a worker. Default: 10 s.
	AcquireTimeout time.Duration `json:"acquire_timeout"`
	// Templates is how many fork servers share the work. Default: min(4, cores).
	Templates int `json:"templates"`

	// Memory bounds what one execution's processes hold together, in bytes. Default: 512 MiB; at least 64 MiB.
	Memory int64 `json:"memory"`
	// Processes bounds the processes and threads of one execution. Default: 64; at least 1.
	Processes int `json:"processes"`
	// Output bounds the characters returned of stdout and of stderr, each. Default: 10000; at least 2.
	Output int `json:"output"`
	// OutputKill is the number of bytes of output, both streams together, that ends an execution with status
	// output_limit; of a session, between two pieces of input. Default: 64 MiB.
	OutputKill int64 `json:"output_kill"`
	// Scratch bounds the writable files of one execution, in bytes. Default: 256 MiB; at least 1 MiB.
	Scratch int64 `json:"scratch"`
	// OpenFiles bounds the descriptors of each process. Default: 256; at least 16.
	OpenFiles int `json:"open_files"`

	// PackagesDir is where installed packages are kept, in a directory for each kind of interpreter. Default: none, and
	// nothing can be installed.
	PackagesDir string `json:"packages_dir"`

	// Isolation is the confinement that is insisted on. Default: strict.
	Isolation Isolation `json:"isolation"`
	// ShutdownGrace is how long Close lets running executions finish before it ends them. Default: 10 s.
	ShutdownGrace time.Duration `json:"shutdown_grace"`

	// Logger receives what happens to processes, never code or output of users. Default: slog.Default().
	Logger *slog.Logger `json:"-"`
	// Metrics receives events. Default: none.
	Metrics Metrics `json:"-"`
}

const mib = 1 << 20

// Normalize returns a copy with every default filled in, or an error that names the word of the configuration
// at fault and the remedy.
func (c Config) Normalize() (Config, error) {
	cores := runtime.NumCPU()
	c.Python = cmp.Or(c.Python, "python3")
	c.Idle = cmp.Or(c.Idle, 2*cores)
	c.Max = cmp.Or(c.Max, 4*cores)
	c.Queue = cmp.Or(c.Queue, 256)
	c.AcquireTimeout = cmp.Or(c.AcquireTimeout, 10*time.Second)
	c.Templates = cmp.Or(c.Templates, min(4, cores))
	c.Memory = cmp.Or(c.Memory, 512*mib)
	c.Processes = cmp.Or(c.Processes, 64)
	c.Output = cmp.Or(c.Output, 10_000)
	c.OutputKill = cmp.Or(c.OutputKill, 64*mib)
	c.Scratch = cmp.Or(c.Scratch, 256*mib)
	c.OpenFiles = cmp.Or(c.OpenFiles, 256)
	c.Isolation = cmp.Or(c.Isolation, IsolationStrict)
	c.ShutdownGrace = cmp.Or(c.ShutdownGrace, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = nopMetrics{}
	}
	for _, bound := range []struct {
		word            string
		value, low, top int64
		unit            string
	}{
		{"workers idle", int64(c.Idle), 1, 4096, ""},
		{"workers max", int64(c.Max), 1, 4096, ""},
		{"workers queue", int64(c.Queue), 0, 1 << 20, ""},
		{"workers acquire_timeout", int64(c.AcquireTimeout / time.Millisecond), 1, 3_600_000, " ms"},
		{"workers templates", int64(c.Templates), 1, 64, ""},
		{"workers shutdown_grace", int64(c.ShutdownGrace / time.Millisecond), 1, 3_600_000, " ms"},
		{"limits memory", c.Memory, 64 * mib, 1 << 50, " bytes"},
		{"limits processes", int64(c.Processes), 1, 1 << 20, ""},
		{"limits output", int64(c.Output), 2, 1 << 26, " characters"},
		{"limits output_kill", c.OutputKill, 1 << 16, 1 << 40, " bytes"},
		{"limits scratch", c.Scratch, mib, 1 << 50, " bytes"},
		{"limits open_files", int64(c.OpenFiles), 16, 1 << 20, ""},
	} {
		if bound.value < bound.low || bound.value > bound.top {
			return c, fmt.Errorf("%s is %d%s: choose a value from %d to %d%s",
				bound.word, bound.value, bound.unit, bound.low, bound.top, bound.unit)
		}
	}
	switch c.Isolation {
	case IsolationStrict, IsolationBestEffort, IsolationNone:
	default:
		return c, fmt.Errorf("isolation %q is unknown: use strict, best_effort or none", string(c.Isolation))
	}
	return c, nil
}

// limits are what confinement bounds.
func (c Config) limits() confine.Limits {
	return confine.Limits{Memory: c.Memory, Processes: c.Processes, Scratch: c.Scratch, OpenFiles: c.OpenFiles}
}
