package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// InstallInput is what a caller asks for.
type InstallInput struct {
	Package string `json:"package" maxLength:"200" doc:"The package's name on the index, with extras if need be, such as requests or requests[socks]. It can differ from the name to import." example:"requests"`
	// Version is nil for the latest.
	Version *string `json:"version,omitempty" nullable:"true" maxLength:"200" doc:"A version such as 2.31.0, a specifier such as >=2,<3, or latest."`
}

// InstallOutput is the answer, over HTTP and over MCP alike.
type InstallOutput struct {
	Success          bool             `json:"success" doc:"True when the package is there now."`
	Status           string           `json:"status" enum:"installed,already_installed,blocked,not_found,too_large,conflict,no_wheel,timeout,failed" doc:"How the install ended. Unless it is installed, nothing has changed."`
	Message          string           `json:"message" doc:"What happened, and what to do about it."`
	InstalledVersion *string          `json:"installed_version" nullable:"true" doc:"The version that is there now, when success is true."`
	InstallationTime float64          `json:"installation_time" doc:"Seconds it took, the wait for other installs included."`
	Packages         []PackageVersion `json:"packages,omitempty" nullable:"false" doc:"What was installed, dependencies included."`
}

// PackageVersion is one package that was installed.
type PackageVersion struct {
	Name    string `json:"name" doc:"Canonical name."`
	Version string `json:"version" doc:"Such as 2.31.0."`
}

// Packages has the operations on packages that HTTP and MCP share. Errors are *edge.Problem. Safe for concurrent use.
type Packages interface {
	Install(ctx context.Context, in InstallInput, progress func(install.Progress)) (InstallOutput, error)
	List(ctx context.Context) (PackageList, error)
}

// InstallSettings bounds installs. All fields but Index, Hosts and BuildSource must be set.
type InstallSettings struct {
	// Index is the address of the package index; "" is whatever pip is configured to use.
	Index string
	// Hosts lists further hosts, besides the index's own, from which files may be downloaded.
	Hosts []string
	// BuildSource lets packages that come as source be built, which runs their code in the installer.
	BuildSource bool
	// MaxDownload bounds the downloads of one install, and MaxInstalled all installed packages together, in bytes.
	MaxDownload, MaxInstalled int64
	// Rate is how many installs a client may ask for within RateWindow.
	Rate       int
	RateWindow time.Duration
	// Timeout bounds one install, not counting its wait for earlier ones.
	Timeout time.Duration
}

// Installs checks, runs, logs and counts the installs of a pool. The zero value installs nothing. It is safe for concurrent use.
type Installs struct {
	Runner   *install.Installs // runs the installs; nil when nothing can be installed
	Policy   *policy.Policy
	Rate     *policy.Rate
	Settings InstallSettings
	Log      *zap.Logger

	mu    sync.Mutex
	index *packages.Index // nil until first needed, since reading pip's configuration takes time
}

// OrNil returns i, or a nil interface when nothing can be installed.
func (i *Installs) OrNil() Packages {
	if i.Runner == nil {
		return nil
	}
	return i
}

// Install validates the input, installs the package, and logs and counts the result. Every error is a *edge.Problem. progress may be nil.
func (i *Installs) Install(ctx context.Context, in InstallInput, progress func(install.Progress)) (InstallOutput, error) {
	version := ""
	if in.Version != nil {
		version = *in.Version
	}
	req, err := policy.ParseRequirement(in.Package, version)
	if err != nil {
		p := edge.NewProblem(http.StatusInternalServerError, metrics.KindInternal, edge.InternalDetail)
		if wrong, ok := errors.AsType[*policy.InvalidError](err); ok {
			p = edge.Invalid(edge.ProblemError{Location: "body." + wrong.Field, Message: wrong.Message})
		}
		p.Count()
		return InstallOutput{}, p
	}
	client := edge.ClientAddress(ctx)
	if ok, wait := i.Rate.Allow(client); !ok {
		p := TooManyInstalls(i.Settings.Rate, i.Settings.RateWindow, wait)
		p.Count()
		return InstallOutput{}, p
	}
	result, err := i.run(ctx, req, client, progress)
	if err != nil {
		p := edge.AsProblem(err)
		p.Count()
		level := zapcore.InfoLevel
		if p.Kind == metrics.KindInternal {
			level = zapcore.ErrorLevel
		}
		i.Log.Log(level, "not installed", zap.String("package", req.String()), zap.String("type", string(p.Kind)), zap.Error(err))
		return InstallOutput{}, p
	}
	switch result.Status {
	case install.NotFound, install.NoWheel, install.Failed:
		// The client may have named a module whose package has another name.
		if meant := policy.Provider(req.Name); meant != "" && meant != req.Name {
			result.Message += fmt.Sprintf(" The module %s comes with the package %s: did you mean that?", req.Name, meant)
		}
	default: // no other status suggests that the name is the wrong one
	}
	metrics.Sandbox.Installed(result.Status)
	if result.Status != install.Blocked { // logged where it was decided
		i.Log.Info("install ended", zap.String("package", req.String()), zap.String("client", client), zap.String("status", string(result.Status)),
			zap.String("version", result.Version), zap.Int("packages", len(result.Packages)), zap.Duration("duration", result.Duration), zap.String("message", result.Message))
	}
	return installOutputOf(result), nil
}

// TooManyInstalls is the refusal of a client that has asked for rate installs within window already.
func TooManyInstalls(rate int, window, wait time.Duration) *edge.Problem {
	p := edge.NewProblem(http.StatusTooManyRequests, metrics.KindRate, fmt.Sprintf("too many installs: at most %d within %s are allowed; try again in %s",
		rate, window, max(wait, time.Second).Round(time.Second)))
	p.RetryAfter = wait
	return p
}

func (i *Installs) run(ctx context.Context, req policy.Requirement, client string, progress func(install.Progress)) (install.Result, error) {
	begin := time.Now()
	if d := i.Policy.Check(req); !d.Allowed {
		i.Log.Warn("package blocked", zap.String("package", req.String()), zap.String("blocked", d.Package), zap.String("rule", string(d.Rule)), zap.String("client", client))
		return install.Result{Status: install.StatusOf(d), Message: d.Message, Duration: time.Since(begin)}, nil
	}
	index, err := i.indexOf(ctx)
	if wrong, ok := errors.AsType[*settingsError](err); ok {
		return install.Result{Status: install.Failed, Message: wrong.Error(), Duration: time.Since(begin)}, nil
	}
	if err != nil {
		return install.Result{}, err
	}
	return i.Runner.Install(ctx, install.Request{
		Requirement: req, Rules: i.Policy, Client: client, Index: index, BuildSource: i.Settings.BuildSource,
		MaxDownload: i.Settings.MaxDownload, MaxInstalled: i.Settings.MaxInstalled, Timeout: i.Settings.Timeout, Progress: progress,
	})
}

// settingsError is an error that the operator has to mend before anything can be installed.
type settingsError struct{ error }

// indexOf returns the index that the configuration names, or that pip is configured to use.
func (i *Installs) indexOf(ctx context.Context) (*packages.Index, error) {
	if index := i.known(); index != nil {
		return index, nil
	}
	config, err := i.Runner.PipConfig(ctx) // may take long, so no lock is held
	if errors.Is(err, install.ErrNoPip) {
		return nil, &settingsError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("reading pip's configuration: %w", err)
	}
	if i.Settings.Index != "" {
		config.IndexURL, config.ExtraIndexURLs, config.FindLinks, config.NoIndex = i.Settings.Index, nil, nil, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.index != nil {
		return i.index, nil
	}
	index, err := packages.NewIndex(config, packages.IndexOptions{ExtraHosts: i.Settings.Hosts, UserAgent: "caddy-python-sandbox/" + Version(), Logger: slog.New(zapslog.NewHandler(i.Log.Core()))})
	if err != nil {
		return nil, &settingsError{fmt.Errorf("the package index cannot be used: %w", err)}
	}
	i.index = index
	return index, nil
}

// known returns the index, or nil before the first install.
func (i *Installs) known() *packages.Index {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.index
}

// Close closes idle connections to the index. Installs that are under way go on.
func (i *Installs) Close() {
	if index := i.known(); index != nil {
		index.Close()
	}
}

func installOutputOf(r install.Result) InstallOutput {
	out := InstallOutput{
		Status: string(r.Status), Message: r.Message, InstallationTime: toSeconds(r.Duration),
		Success: r.Status == install.Installed || r.Status == install.Already,
	}
	if out.Success && r.Version != "" {
		out.InstalledVersion = &r.Version
	}
	for _, one := range r.Packages {
		out.Packages = append(out.Packages, PackageVersion{one.Name, one.Version})
	}
	return out
}

var _ Packages = (*Installs)(nil)
