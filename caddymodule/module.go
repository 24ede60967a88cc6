// Package caddymodule is the Caddy side of the Python sandbox: the directive python_sandbox, its settings and its life cycle. The
// surfaces are packages below it. Only this package imports Caddy's core.
package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/api"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/mcpserver"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler runs Python that clients send, each time in a fresh, confined process that was forked ahead of demand. It
// serves POST /execute, POST /pip_install, GET /packages, GET /health, GET /openapi.json, GET /docs and MCP at /mcp and
// /mcp/sse, and /jupyter where it is switched on. A site that strips a prefix, as handle_path does, serves them below it. Every
// other path goes to the next handler.
type Handler struct {
	// The Python interpreter: a path, or a name on PATH. Shims and virtual environments are resolved to the real
	// interpreter. It must be CPython 3.10 or later. Default: python3
	Python string `json:"python,omitempty"`

	// Modules that are imported ahead, so that user code has them at no cost. They come from the interpreter above.
	// Default: none
	Preload []string `json:"preload,omitempty"`

	// Directories that user code can import from besides the interpreter's own, absolute; it cannot write to them.
	// Default: none
	PythonPath []string `json:"python_path,omitempty"`

	// How many processes are kept and how many requests wait.
	Workers Workers `json:"workers,omitzero"`

	// What one execution may use.
	Limits Limits `json:"limits,omitzero"`

	// How much confinement is required. `strict` does not start unless every guarantee is held; `best_effort`
	// takes what the system offers; `none` is for development. Default: strict
	Isolation string `json:"isolation,omitempty"`

	// What clients may install.
	Packages Packages `json:"packages,omitzero"`

	// Whether MCP is served. Default: true
	MCP *bool `json:"mcp,omitempty"`

	// Whether the interactive documentation is served at /docs. The OpenAPI document behind it, which is for programs,
	// is always served. Default: true
	Docs *bool `json:"docs,omitempty"`

	// The part of the Jupyter Server API that code interpreters use, at /jupyter. Default: not served
	Jupyter *Jupyter `json:"jupyter,omitempty"`

	// Names under which clients reach the server through a proxy on this machine, such as `sandbox` where that proxy passes
	// the Host header on; without port. A request that arrives on a loopback address under any other name than these and
	// localhost is refused by MCP, and by the rest when a browser sent it: it could come from a web page whose site has pointed
	// its name at this machine (DNS rebinding). Default: none
	Hosts []string `json:"hosts,omitempty"`

	log      *zap.Logger
	access   *edge.AccessLog
	routes   edge.Routes
	shares   shares
	claim    siteClaim
	serving  atomic.Bool  // its configuration has been accepted
	inFlight atomic.Int64 // requests of the HTTP operations
}

// Workers sizes the pool of processes. Zero means the default.
type Workers struct {
	// Workers that are parked and ready. Default: 2 for each core
	Idle int `json:"idle,omitempty"`

	// Requests that execute at once. Default: 4 for each core
	Max int `json:"max,omitempty"`

	// Requests that wait when `max` are executing; more are refused with 503. Default: 256
	Queue int `json:"queue,omitempty"`

	// How long a request waits for a worker before it is refused with 503. Default: 10s
	AcquireTimeout caddy.Duration `json:"acquire_timeout,omitempty"`

	// Fork servers that share the work. Default: one for each core, at most 4
	Templates int `json:"templates,omitempty"`

	// How long executions and installs that run may go on when the server stops or its settings change. Default: 10s
	ShutdownGrace caddy.Duration `json:"shutdown_grace,omitempty"`
}

// Limits bounds one execution. Zero means the default.
type Limits struct {
	// How long code may run when its caller does not say; lowered to `execute_timeout_max` when above it.
	// Default: 30s
	ExecuteTimeout caddy.Duration `json:"execute_timeout,omitempty"`

	// The longest that a caller may ask for. Default: 120s, or `execute_timeout` when that is set and longer
	ExecuteTimeoutMax caddy.Duration `json:"execute_timeout_max,omitempty"`

	// Memory that all processes of an execution hold together, in bytes; at least 64 MiB. Default: 536870912 (512 MiB)
	Memory int64 `json:"memory,omitempty"`

	// Processes and threads that an execution may have at once. Default: 64
	Processes int `json:"processes,omitempty"`

	// Characters that are returned of stdout, and of stderr; the middle of longer output is left out. Default: 10000
	Output int `json:"output,omitempty"`

	// Output of both streams together above which an execution is ended, in bytes; at least 64 KiB. Default: 67108864 (64 MiB)
	OutputKill int64 `json:"output_kill,omitempty"`

	// What the files of an execution may hold together, in bytes; at least 1 MiB. Default: 268435456 (256 MiB)
	Scratch int64 `json:"scratch,omitempty"`

	// Open files of each process; at least 16. Default: 256
	OpenFiles int `json:"open_files,omitempty"`

	// Size of a request's body, in bytes. Default: 10485760 (10 MiB)
	RequestBody int64 `json:"request_body,omitempty"`

	// What the bodies of all requests in progress may hold together, in bytes; at least `request_body`. A request beyond it is
	// refused with 503. Default: 134217728 (128 MiB), or `request_body` when that is larger
	RequestBodies int64 `json:"request_bodies,omitempty"`

	// How long a request's body may take to arrive, where the site has no timeout for that. Default: 1m
	BodyTimeout caddy.Duration `json:"body_timeout,omitempty"`
}

// Defaults of settings that the pool does not know. The pool has defaults of its own.
const (
	defaultExecuteTimeout    = 30 * time.Second
	defaultExecuteTimeoutMax = 120 * time.Second
	defaultRequestBody       = 10 << 20
	defaultRequestBodies     = 128 << 20
	defaultBodyTimeout       = time.Minute
)

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.python_sandbox",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds or starts the pool. It returns when the first template is ready; workers are started afterwards.
func (h *Handler) Provision(ctx caddy.Context) error {
	if err := h.Validate(); err != nil {
		return err // before anything is started
	}
	h.log = ctx.Logger()
	if err := metrics.Sandbox.Register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	cfg, err := h.poolConfig().Normalize()
	if err != nil {
		return err
	}
	if cfg.PackagesDir, err = h.Packages.directory(h.log); err != nil {
		return err
	}
	rt, held, err := loadRuntime(ctx, cfg, h.log)
	if _, closed := errors.AsType[*pool.PackagesDirError](err); closed && h.Packages.DataDir == "" { // the operator has not chosen the directory
		h.log.Warn("packages are off: programs cannot read Caddy's data directory; set packages data_dir, or packages off to say so", zap.Error(err))
		cfg.PackagesDir = ""
		rt, held, err = loadRuntime(ctx, cfg, h.log)
	}
	if err != nil {
		return err
	}
	h.shares.runtime = held // from here on Cleanup has something to release
	if err := h.onServing(ctx); err != nil {
		return err
	}

	// Access log lines use the logger of Caddy's HTTP app, so that they go where the configuration sends access logs.
	h.access = edge.NewAccessLog(ctx.Logger(new(caddyhttp.App)), userID)
	h.routes = edge.Routes{}
	if err := h.addAPI(rt, cfg); err != nil {
		return err
	}
	if h.Docs == nil || *h.Docs {
		if err := api.AddDocs(h.routes); err != nil {
			return err
		}
	}
	if h.MCP == nil || *h.MCP {
		front, err := h.loadFront(cfg)
		if err != nil {
			return err
		}
		front.AddTo(h.routes)
		h.onExit(ctx, front.Close)
	}
	if h.Jupyter != nil {
		front, err := h.loadKernels(ctx, cfg)
		if err != nil {
			return err
		}
		front.AddTo(h.routes)
		h.onExit(ctx, front.Close)
	}
	h.onExit(ctx, rt.installs.Drain)
	return nil
}

func (h *Handler) addAPI(rt *runtime, cfg pool.Config) error {
	standard, most := h.executeTimeouts()
	state := &operation.Health{Stat: rt.pool.Stat, Started: rt.started, Limits: h.shownLimits(cfg), ShuttingDown: shuttingDown}
	install, held, err := h.installation(rt, cfg)
	if err != nil {
		return err
	}
	h.shares.installs = held
	return api.AddOperations(h.routes, h.executions(rt, cfg, install, h.log), install.OrNil(),
		api.Options{DefaultTimeout: standard, MaxTimeout: most, Bodies: rt.bodies(h.bodyBounds()), Health: state.Look, InFlight: &h.inFlight})
}

// executions returns the operation that executes.
func (h *Handler) executions(rt *runtime, cfg pool.Config, install *operation.Installs, log *zap.Logger) *operation.Executions {
	standard, most := h.executeTimeouts()
	return &operation.Executions{
		Pool: rt.pool, DefaultTimeout: standard, MaxTimeout: most, Memory: cfg.Memory, OutputKill: cfg.OutputKill, Processes: cfg.Processes,
		Packages: install.Hints(), Log: log,
	}
}

// installation returns the operation that installs, or one that only gives hints where nothing can be installed. Its caller has to
// release the share.
func (h *Handler) installation(rt *runtime, cfg pool.Config) (*operation.Installs, share, error) {
	if cfg.PackagesDir == "" {
		return &operation.Installs{}, share{}, nil
	}
	return loadInstalls(rt, h.shares.runtime.key, h.Packages, h.log)
}

// shownLimits returns the limits of one execution, as /health and the check show them.
func (h *Handler) shownLimits(cfg pool.Config) operation.HealthLimits {
	standard, most := h.executeTimeouts()
	return operation.HealthLimits{
		ExecuteTimeout: standard.Seconds(), ExecuteTimeoutMax: most.Seconds(),
		MemoryBytes: cfg.Memory, Processes: cfg.Processes, OutputCharacters: cfg.Output, OutputKillBytes: cfg.OutputKill, ScratchBytes: cfg.Scratch,
		OpenFiles: cfg.OpenFiles, RequestBodyBytes: h.maxBody(), CodeBytes: operation.MaxCodeBytes,
	}
}

func (h *Handler) loadFront(cfg pool.Config) (*sharedFront, error) {
	own, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding the settings of the handler: %w", err)
	}
	standard, most := h.executeTimeouts()
	front, held, err := loadFront(h.shares.runtime.key+string(own), h.shares.runtime.key, h.log, func(rt *runtime, log *zap.Logger) (*mcpserver.Front, share, error) {
		install, installs, err := h.installation(rt, cfg)
		if err != nil {
			return nil, share{}, err
		}
		return mcpserver.New(h.executions(rt, cfg, install, log), mcpserver.Options{
			Install: install.OrNil(),
			Logger:  log, DefaultTimeout: standard, MaxTimeout: most, Bodies: rt.bodies(h.bodyBounds()),
			Python: rt.pool.Stat().Python.Version, Preload: cfg.Preload, MaxConcurrent: cfg.Max + cfg.Queue,
		}), installs, nil
	})
	if err != nil {
		return nil, err
	}
	h.shares.mcp = held
	return front, nil
}

// onExit has end called when Caddy exits. Its servers wait for open requests first, so an SSE stream that nobody ends, or a long
// install, would keep the process alive. On a reload end is not called, and both go on.
func (*Handler) onExit(ctx caddy.Context, end func()) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	server.RegisterOnShutdown(func() {
		if caddy.Exiting() {
			end()
		}
	})
}

// shuttingDown reports whether Caddy has announced its end (global option shutdown_delay), which is when a load
// balancer should look elsewhere while requests are still served.
func shuttingDown(ctx context.Context) bool {
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	down, _ := repl.Get("http.shutting_down")
	announced, _ := down.(bool)
	return announced
}

// userID is the authenticated user of a request, as access logs show it.
func userID(ctx context.Context) string {
	replacer, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := replacer.GetString("http.auth.user.id")
	return id
}

// Validate checks the settings without starting a process. Provision calls it, too, before it starts one.
func (h *Handler) Validate() error {
	for _, bound := range []struct {
		word  string
		value caddy.Duration
	}{
		{"limits execute_timeout", h.Limits.ExecuteTimeout},
		{"limits execute_timeout, its maximum,", h.Limits.ExecuteTimeoutMax},
		{"limits body_timeout", h.Limits.BodyTimeout},
	} {
		if d := time.Duration(bound.value); d < 0 || d > 24*time.Hour {
			return fmt.Errorf("%s is %s: choose a duration above 0s and up to 24h", bound.word, d)
		}
	}
	if h.Limits.RequestBody < 0 || h.Limits.RequestBody > 1<<30 {
		return fmt.Errorf("limits request_body is %d bytes: choose a size from 1 to %d bytes (1 GiB)", h.Limits.RequestBody, 1<<30)
	}
	if bodies := h.Limits.RequestBodies; bodies != 0 && (bodies < h.maxBody() || bodies > 1<<40) {
		return fmt.Errorf("limits request_bodies is %d bytes: choose a size from limits request_body, %d bytes, to %d bytes (1 TiB)", bodies, h.maxBody(), int64(1)<<40)
	}
	for _, dir := range h.PythonPath {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("python_path %q is not absolute: give the full path of the directory", dir)
		}
	}
	if err := h.Packages.validate(); err != nil {
		return err
	}
	if err := edge.ValidateHosts(h.Hosts); err != nil {
		return err
	}
	_, err := h.poolConfig().Normalize()
	return err
}

func (h *Handler) poolConfig() pool.Config {
	return pool.Config{
		Python: h.Python, Preload: h.Preload, PythonPath: h.PythonPath,
		Idle: h.Workers.Idle, Max: h.Workers.Max, Queue: h.Workers.Queue,
		AcquireTimeout: time.Duration(h.Workers.AcquireTimeout), Templates: h.Workers.Templates,
		ShutdownGrace: time.Duration(h.Workers.ShutdownGrace),
		Memory:        h.Limits.Memory, Processes: h.Limits.Processes, Output: h.Limits.Output, OutputKill: h.Limits.OutputKill,
		Scratch: h.Limits.Scratch, OpenFiles: h.Limits.OpenFiles,
		Isolation: pool.Isolation(h.Isolation),
	}
}

// executeTimeouts returns the default and the maximum.
func (h *Handler) executeTimeouts() (standard, most time.Duration) {
	standard, most = time.Duration(h.Limits.ExecuteTimeout), time.Duration(h.Limits.ExecuteTimeoutMax)
	if most == 0 {
		most = max(defaultExecuteTimeoutMax, standard)
	}
	if standard == 0 {
		standard = defaultExecuteTimeout
	}
	return min(standard, most), most
}

func (h *Handler) maxBody() int64 {
	if h.Limits.RequestBody == 0 {
		return defaultRequestBody
	}
	return h.Limits.RequestBody
}

// bodyBounds are what one body and all bodies may hold, in bytes, and how long one may take to arrive.
func (h *Handler) bodyBounds() bodyBounds {
	return bodyBounds{
		one:    h.maxBody(),
		all:    max(cmp.Or(h.Limits.RequestBodies, defaultRequestBodies), h.maxBody()),
		within: cmp.Or(time.Duration(h.Limits.BodyTimeout), defaultBodyTimeout),
	}
}

// ServeHTTP answers requests for the sandbox's own paths and passes all others to next.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.routes.IsSensitive(r.URL.Path) {
		defer h.access.TakeOver(w, r)()
	}
	if h.routes.Serve(w, r, h.log, h.Hosts...) {
		return nil
	}
	return next.ServeHTTP(w, r) //nolint:wrapcheck // not ours
}

// Interface guards
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
