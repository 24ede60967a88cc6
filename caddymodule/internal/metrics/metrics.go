// Package metrics counts what the sandbox does, for Prometheus.
package metrics

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// Sandbox has the metrics of this process. They are registered with the registry of each configuration, so that counters continue over
// reloads.
var Sandbox = newCollectors()

// collectors counts what the sandbox does. All methods are safe for concurrent use.
type collectors struct {
	executions *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	installs   *prometheus.CounterVec
	errors     *prometheus.CounterVec
	exits      *prometheus.CounterVec
	templates  prometheus.Counter
	acquire    prometheus.Histogram
	Pools      *poolCollector
}

func newCollectors() *collectors {
	m := &collectors{
		executions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandbox_executions_total", Help: "Executions that have a result, by the status they ended with.",
		}, []string{"status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sandbox_execution_duration_seconds", Help: "How long code ran, by the status it ended with.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"status"}),
		installs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandbox_package_installs_total", Help: "Installs that have a result, by the status they ended with.",
		}, []string{"status"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandbox_errors_total", Help: "Requests that were refused or failed, by type.",
		}, []string{"type"}),
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandbox_worker_exits_total", Help: "Workers that ended, by reason.",
		}, []string{"reason"}),
		templates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sandbox_template_exits_total", Help: "Templates that ended unexpectedly.",
		}),
		acquire: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sandbox_acquire_duration_seconds", Help: "How long requests waited for a worker, given or not.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		Pools: newPoolCollector(),
	}
	// A series that appears only with its first event hides that event from rate().
	for _, status := range pool.Statuses {
		m.executions.WithLabelValues(string(status))
		m.durations.WithLabelValues(string(status))
	}
	for _, status := range install.Statuses {
		m.installs.WithLabelValues(string(status))
	}
	for _, k := range kinds {
		m.errors.WithLabelValues(string(k))
	}
	for _, reason := range pool.Reasons {
		m.exits.WithLabelValues(string(reason))
	}
	return m
}

// Register adds the collectors to a configuration's registry. It may be called again for the same registry, which the handlers of one
// configuration share.
func (m *collectors) Register(registry *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{m.executions, m.durations, m.installs, m.errors, m.exits, m.templates, m.acquire, m.Pools} {
		if err := registry.Register(c); err != nil {
			if _, already := errors.AsType[prometheus.AlreadyRegisteredError](err); already {
				continue
			}
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// Executed counts an execution that has a result.
func (m *collectors) Executed(r pool.Result) {
	m.executions.WithLabelValues(string(r.Status)).Inc()
	m.durations.WithLabelValues(string(r.Status)).Observe(r.ExecutionTime.Seconds())
}

// Installed counts an install that has a result.
func (m *collectors) Installed(status install.Status) {
	m.installs.WithLabelValues(string(status)).Inc()
}

// Failed counts a request that was refused or has failed.
func (m *collectors) Failed(k Kind) { m.errors.WithLabelValues(string(k)).Inc() }

// WorkerExited counts the end of a worker. With Acquired and TemplateExited it makes collectors a pool.Metrics.
func (m *collectors) WorkerExited(reason pool.Reason) { m.exits.WithLabelValues(string(reason)).Inc() }

// Acquired observes a wait for a worker.
func (m *collectors) Acquired(wait time.Duration) { m.acquire.Observe(wait.Seconds()) }

// TemplateExited counts the unexpected end of a template.
func (m *collectors) TemplateExited() { m.templates.Inc() }

// statter is what the gauges need of a pool.
type statter interface{ Stat() pool.Stat }

// poolCollector sums the state of all live pools at each scrape, so that no gauge can go stale. Safe for concurrent use.
type poolCollector struct {
	workers, queueDepth, memory *prometheus.Desc

	mu    sync.Mutex
	pools map[statter]struct{}
}

func newPoolCollector() *poolCollector {
	return &poolCollector{
		workers:    prometheus.NewDesc("sandbox_workers", "Live workers, by state.", []string{"state"}, nil),
		queueDepth: prometheus.NewDesc("sandbox_queue_depth", "Requests that wait for a worker.", nil, nil),
		memory:     prometheus.NewDesc("sandbox_worker_memory_bytes", "Resident memory of the workers that execute.", nil, nil),
		pools:      map[statter]struct{}{},
	}
}

// Add includes a pool in the gauges.
func (c *poolCollector) Add(p statter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pools[p] = struct{}{}
}

// Remove takes a pool out of the gauges.
func (c *poolCollector) Remove(p statter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, p)
}

// Describe sends the descriptions of the gauges.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.workers
	ch <- c.queueDepth
	ch <- c.memory
}

// Collect sends the gauges.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	var depth int
	var memory int64
	counts := map[pool.State]int{}
	c.mu.Lock()
	for p := range c.pools {
		stat := p.Stat()
		depth += stat.QueueDepth
		memory += stat.WorkerMemory
		for state, n := range stat.Workers {
			counts[state] += n
		}
	}
	c.mu.Unlock()
	for _, state := range pool.States {
		if state != pool.StateDead {
			ch <- prometheus.MustNewConstMetric(c.workers, prometheus.GaugeValue, float64(counts[state]), state.String())
		}
	}
	ch <- prometheus.MustNewConstMetric(c.queueDepth, prometheus.GaugeValue, float64(depth))
	ch <- prometheus.MustNewConstMetric(c.memory, prometheus.GaugeValue, float64(memory))
}

var (
	_ pool.Metrics         = (*collectors)(nil)
	_ prometheus.Collector = (*poolCollector)(nil)
)
