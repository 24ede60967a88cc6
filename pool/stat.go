package pool

import (
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// Stat is a snapshot of a pool.
type Stat struct {
	// Ready is true when at least one template is ready, workers can be started and the pool is not closing.
	Ready bool
	// Draining is true once Close has begun.
	Draining bool
	// Workers counts the live workers in each state.
	Workers map[State]int
	// Templates counts the templates that are ready, of TemplatesTarget.
	Templates, TemplatesTarget int
	// QueueDepth is how many requests wait for a worker.
	QueueDepth int
	// WorkerMemory is the resident memory of executing workers at the monitor's last look, in bytes.
	WorkerMemory int64
	// Python describes the interpreter.
	Python Interpreter
	// Preloaded lists the modules that were preloaded.
	Preloaded []string
	// Isolation is the mode in force.
	Isolation Isolation
	// Guarantees is the table of what user code is promised, and by which layers.
	Guarantees []Guarantee
}

// Interpreter is the Python of a pool, as it describes itself.
type Interpreter = process.Interpreter

// Guarantee is one promise about user code and the layers that hold it; none means that it is not held.
type Guarantee = confine.Guarantee

// Metrics receives a pool's events. Implementations must be safe for concurrent use and must not block.
type Metrics interface {
	// WorkerExited counts the end of a worker.
	WorkerExited(reason Reason)
	// Acquired observes how long a request waited for a worker, whether it got one or not.
	Acquired(wait time.Duration)
	// TemplateExited counts the unexpected end of a template.
	TemplateExited()
}

type nopMetrics struct{}

func (nopMetrics) WorkerExited(Reason)    {}
func (nopMetrics) Acquired(time.Duration) {}
func (nopMetrics) TemplateExited()        {}
