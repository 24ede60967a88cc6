package caddymodule

import (
	"context"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// healthOutput is the body of GET /health, whatever its status.
type healthOutput struct {
	Status     string         `json:"status" enum:"ok,starting,draining,unavailable" doc:"ok when executions are taken."`
	Version    string         `json:"version" doc:"The sandbox's version."`
	Python     healthPython   `json:"python" doc:"The interpreter."`
	Preloaded  []string       `json:"preloaded" nullable:"false" doc:"Modules that cost nothing to import."`
	Workers    map[string]int `json:"workers" doc:"Live workers, by state."`
	Templates  healthCount    `json:"templates" doc:"Fork servers."`
	QueueDepth int            `json:"queue_depth" doc:"Requests that wait for a worker."`
	Isolation  string         `json:"isolation" doc:"The confinement that is insisted on."`
	Guarantees []guarantee    `json:"guarantees" nullable:"false" doc:"What user code is promised, and which layers hold it."`
	Limits     healthLimits   `json:"limits" doc:"Bounds of one execution."`
	Uptime     float64        `json:"uptime" doc:"Seconds since the workers' pool started."`
}

type healthPython struct {
	Version    string `json:"version" doc:"Such as 3.12.4."`
	Executable string `json:"executable" doc:"The real interpreter behind shims."`
}

type healthCount struct {
	Ready  int `json:"ready" doc:"How many are ready."`
	Target int `json:"target" doc:"How many there should be."`
}

type guarantee struct {
	Name   string   `json:"name" doc:"What is promised."`
	Layers []string `json:"layers" nullable:"false" doc:"What holds it; empty when nothing does."`
	Reason string   `json:"reason,omitempty" doc:"Why nothing holds it."`
}

type healthLimits struct {
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

// health reads the pool's state for whoever routes traffic here.
type health struct {
	stat    func() pool.Stat
	limits  healthLimits
	started time.Time
	// shuttingDown says whether the server has announced its end; nil where it never does.
	shuttingDown func(context.Context) bool
}

// look returns the state and whether executions are taken.
func (h *health) look(ctx context.Context) (healthOutput, bool) {
	stat := h.stat()
	out := healthOutput{
		Version:    buildVersion(),
		Python:     healthPython{stat.Python.Version, stat.Python.Executable},
		Preloaded:  stat.Preloaded,
		Workers:    map[string]int{},
		Templates:  healthCount{stat.Templates, stat.TemplatesTarget},
		QueueDepth: stat.QueueDepth,
		Isolation:  string(stat.Isolation),
		Guarantees: make([]guarantee, len(stat.Guarantees)),
		Limits:     h.limits,
		Uptime:     toSeconds(time.Since(h.started)),
	}
	for state, n := range stat.Workers {
		out.Workers[state.String()] = n
	}
	for i, g := range stat.Guarantees {
		out.Guarantees[i] = guarantee(g)
	}
	out.Status = h.status(ctx, stat)
	return out, out.Status == "ok"
}

// startupTime is how long a pool that is not ready counts as one that starts.
const startupTime = 10 * time.Second

func (h *health) status(ctx context.Context, stat pool.Stat) string {
	switch {
	case stat.Draining || h.shuttingDown != nil && h.shuttingDown(ctx):
		return "draining"
	case stat.Ready:
		return "ok"
	case time.Since(h.started) < startupTime:
		return "starting"
	default:
		return "unavailable"
	}
}
