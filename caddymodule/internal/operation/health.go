package operation

import (
	"context"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// HealthOutput is the body of GET /health, whatever its status.
type HealthOutput struct {
	Status     string         `json:"status" enum:"ok,starting,draining,unavailable" doc:"ok when executions are taken."`
	Version    string         `json:"version" doc:"The sandbox's version."`
	Python     HealthPython   `json:"python" doc:"The interpreter."`
	Preloaded  []string       `json:"preloaded" nullable:"false" doc:"Modules that cost nothing to import."`
	Workers    map[string]int `json:"workers" doc:"Live workers, by state."`
	Templates  HealthCount    `json:"templates" doc:"Fork servers."`
	QueueDepth int            `json:"queue_depth" doc:"Requests that wait for a worker."`
	Isolation  string         `json:"isolation" doc:"The confinement that is insisted on."`
	Guarantees []Guarantee    `json:"guarantees" nullable:"false" doc:"What user code is promised, and which layers hold it."`
	Limits     HealthLimits   `json:"limits" doc:"Bounds of one execution."`
	Uptime     float64        `json:"uptime" doc:"Seconds since the workers' pool started."`
}

// HealthPython describes the interpreter.
type HealthPython struct {
	Version    string `json:"version" doc:"Such as 3.12.4."`
	Executable string `json:"executable" doc:"The real interpreter behind shims."`
}

// HealthCount is how many of something are ready, and how many there should be.
type HealthCount struct {
	Ready  int `json:"ready" doc:"How many are ready."`
	Target int `json:"target" doc:"How many there should be."`
}

// Guarantee is one promise about user code, as pool.Guarantee.
type Guarantee struct {
	Name   string   `json:"name" doc:"What is promised."`
	Layers []string `json:"layers" nullable:"false" doc:"What holds it; empty when nothing does."`
	Reason string   `json:"reason,omitempty" doc:"Why nothing holds it."`
}

// HealthLimits are the bounds of one execution.
type HealthLimits struct {
	ExecuteTimeout    float64 `json:"execute_timeout" doc:"Seconds, when the caller names none."`
	ExecuteTimeoutMax float64 `json:"execute_timeout_max" doc:"Seconds, at most."`
	MemoryBytes       int64   `json:"memory_bytes" doc:"Memory of all processes together."`
	Processes         int     `json:"processes" doc:"Processes and threads."`
	OutputCharacters  int     `json:"output_characters" doc:"Of stdout and of stderr, each."`
	OutputKillBytes   int64   `json:"output_kill_bytes" doc:"Of both streams together; more ends an execution."`
	ScratchBytes      int64   `json:"scratch_bytes" doc:"Writable files."`
	OpenFiles         int     `json:"open_files" doc:"Descriptors of each process."`
	RequestBodyBytes  int64   `json:"request_body_bytes" doc:"A request's body."`
	CodeBytes         int     `json:"code_bytes" doc:"Source."`
}

// Health reads the pool's state, for load balancers and people.
type Health struct {
	Stat    func() pool.Stat
	Limits  HealthLimits
	Started time.Time
	// ShuttingDown says whether the server has announced that it shuts down; nil if it never does.
	ShuttingDown func(context.Context) bool
}

// Look returns the state, and whether the pool accepts executions.
func (h *Health) Look(ctx context.Context) (HealthOutput, bool) {
	stat := h.Stat()
	out := HealthOutput{
		Version:    Version(),
		Python:     HealthPython{stat.Python.Version, stat.Python.Executable},
		Preloaded:  stat.Preloaded,
		Workers:    map[string]int{},
		Templates:  HealthCount{stat.Templates, stat.TemplatesTarget},
		QueueDepth: stat.QueueDepth,
		Isolation:  string(stat.Isolation),
		Guarantees: make([]Guarantee, len(stat.Guarantees)),
		Limits:     h.Limits,
		Uptime:     toSeconds(time.Since(h.Started)),
	}
	for state, n := range stat.Workers {
		out.Workers[state.String()] = n
	}
	for i, g := range stat.Guarantees {
		out.Guarantees[i] = Guarantee(g)
	}
	out.Status = h.status(ctx, stat)
	return out, out.Status == "ok"
}

// startupTime is how long after its start a pool that is not ready is "starting" rather than "unavailable".
const startupTime = 10 * time.Second

func (h *Health) status(ctx context.Context, stat pool.Stat) string {
	switch {
	case stat.Draining || h.ShuttingDown != nil && h.ShuttingDown(ctx):
		return "draining"
	case stat.Ready:
		return "ok"
	case time.Since(h.Started) < startupTime:
		return "starting"
	default:
		return "unavailable"
	}
}
