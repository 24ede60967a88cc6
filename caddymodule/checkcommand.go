package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "python-sandbox",
		Short: "Commands of the Python sandbox",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(newCheckCommand(startChecked))
		},
	})
}

// errNotHeld ends the check with status 1. What it means has been printed by then.
var errNotHeld = errors.New("not every guarantee is held")

func newCheckCommand(start startPool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [--config <path> [--adapter <name>]] [--python <path>] [--isolation <mode>] [--json]",
		Short: "Says whether this system can hold what the sandbox promises",
		Long: `
Starts a sandbox as the directive without settings would, runs a program in it,
and prints each guarantee about user code with the layers that hold it here, or
why nothing does. With --config it does so for every python_sandbox of that
configuration. Nothing is served, and nothing is changed.

Run it where Caddy will run: as the same user, and in the same container or
systemd unit, since these decide what the kernel grants.

The exit status is 0 when every guarantee is held, and 1 otherwise.
`,
		Args: cobra.NoArgs,
	}
	config := cmd.Flags().StringP("config", "c", "", "Configuration file whose sandboxes are checked")
	adapter := cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply (when --config is used)")
	python := cmd.Flags().StringP("python", "", "", "Interpreter, in place of the configuration's")
	isolation := cmd.Flags().StringP("isolation", "", "", "Isolation (strict, best_effort or none), in place of the configuration's")
	asJSON := cmd.Flags().BoolP("json", "", false, "Print the result in JSON format")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found, err := handlersToCheck(*config, *adapter)
		if err != nil {
			return err // cobra prints it
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		report := newCheckReport()
		for _, f := range found {
			if *python != "" {
				f.handler.Python = *python
			}
			if *isolation != "" {
				f.handler.Isolation = *isolation
			}
			report.add(f.check(ctx, start))
		}
		if err := report.print(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if !report.Held {
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			return errNotHeld
		}
		return nil
	}
	return cmd
}

// startPool is pool.New, which tests replace.
type startPool func(ctx context.Context, cfg pool.Config) (checkedPool, error)

type checkedPool interface {
	Stat() pool.Stat
	Execute(ctx context.Context, req pool.Request) (pool.Result, error)
	Close() error
}

func startChecked(ctx context.Context, cfg pool.Config) (checkedPool, error) {
	p, err := pool.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// checkTimeout bounds how long the check's program may wait for its worker, and how long it may run.
const checkTimeout = 20 * time.Second

// check starts what the handler would start, looks at it and ends it.
func (f *foundHandler) check(ctx context.Context, start startPool) sandboxReport {
	r := sandboxReport{Where: f.where, Guarantees: []operation.Guarantee{}}
	if r.Where == nil {
		r.Where = []string{}
	}
	cfg, err := f.handler.poolConfig().Normalize()
	if err == nil {
		err = f.handler.Validate()
	}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Isolation = string(cfg.Isolation)
	r.Limits = f.handler.shownLimits(cfg)
	log := new(errorLog)
	cfg.Logger = slog.New(log)
	// One worker and one template are enough: guarantees do not depend on their number.
	cfg.Idle, cfg.Max, cfg.Templates, cfg.AcquireTimeout, cfg.ShutdownGrace = 1, 1, 1, checkTimeout, time.Second
	p, err := start(ctx, cfg)
	if err != nil && cfg.Isolation == pool.IsolationStrict {
		refusal := err
		cfg.Isolation = pool.IsolationBestEffort // which starts, and so shows every guarantee
		if p, err = start(ctx, cfg); err == nil || err.Error() != refusal.Error() {
			r.Refusal = refusal.Error()
		}
	}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer func() { _ = p.Close() }()
	stat := p.Stat()
	r.Python = &operation.HealthPython{Version: stat.Python.Version, Executable: stat.Python.Executable}
	for _, g := range stat.Guarantees {
		r.Guarantees = append(r.Guarantees, operation.Guarantee(g))
	}
	const answer = "print(6 * 7)"
	result, err := p.Execute(ctx, pool.Request{ID: "check", Code: answer, Timeout: checkTimeout})
	switch {
	case err != nil && log.last() != "":
		r.Error = "a program does not run in this sandbox: " + log.last()
	case err != nil:
		r.Error = "a program does not run in this sandbox: " + err.Error()
	case result.Stdout != "42\n":
		r.Error = fmt.Sprintf("%s does not answer 42 in this sandbox: its status is %s, and it says %q", answer, result.Status, result.Stderr)
	}
	return r
}

// errorLog keeps the error that a pool logged last: only the log says why workers do not boot.
type errorLog struct {
	mu   sync.Mutex
	text string
}

func (l *errorLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// Enabled and the methods below make errorLog a slog.Handler.
func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

// Handle keeps the record's message, with its attribute "error" if it has one.
func (l *errorLog) Handle(_ context.Context, record slog.Record) error {
	text := record.Message
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			text += ": " + a.Value.String()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = text
	return nil
}

// WithAttrs returns l itself, since only attributes of records are shown.
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup returns l itself, for the same reason.
func (l *errorLog) WithGroup(string) slog.Handler { return l }

var _ slog.Handler = (*errorLog)(nil)
