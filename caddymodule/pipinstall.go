package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// installInput is what a caller asks for.
type installInput struct {
	Package string `json:"package" maxLength:"200" doc:"The package's name on the index, with extras if need be, such as requests or requests[socks]. It can differ from the name to import." example:"requests"`
	// Version is nil for the latest.
	Version *string `json:"version,omitempty" nullable:"true" maxLength:"200" doc:"A version such as 2.31.0, a specifier such as >=2,<3, or latest."`
}

// installOutput is the answer, over HTTP and over MCP alike.
type installOutput struct {
	Success          bool             `json:"success" doc:"True when the package is there now."`
	Status           string           `json:"status" enum:"installed,already_installed,blocked,not_found,too_large,conflict,no_wheel,timeout,failed" doc:"How the install ended. Unless it is installed, nothing has changed."`
	Message          string           `json:"message" doc:"What happened, and what to do about it."`
	InstalledVersion *string          `json:"installed_version" nullable:"true" doc:"The version that is there now, when success is true."`
	InstallationTime float64          `json:"installation_time" doc:"Seconds it took, the wait for other installs included."`
	Packages         []packageVersion `json:"packages,omitempty" nullable:"false" doc:"What was installed, dependencies included."`
}

type packageVersion struct {
	Name    string `json:"name" doc:"Canonical name."`
	Version string `json:"version" doc:"Such as 2.31.0."`
}

// installer is the operation that both surfaces enter. Its error is a *problem when the caller can act on it.
type installer interface {
	install(ctx context.Context, in installInput, progress func(pool.InstallProgress)) (installOutput, error)
	list(ctx context.Context) (packageList, error)
}

// installSettings bounds installs. Every field is set.
type installSettings struct {
	// Index is the address of the package index; "" is whatever pip is configured to use.
	Index string
	// Hosts may serve files besides the index's own.
	Hosts []string
	// BuildSource has packages that come as source built.
	BuildSource bool
	// MaxDownload bounds one install and MaxInstalled all that is installed, in bytes.
	MaxDownload, MaxInstalled int64
	// Rate is how many installs a client may ask for within RateWindow.
	Rate       int
	RateWindow time.Duration
	// Timeout bounds one install, the wait for those before it not counted.
	Timeout time.Duration
}

// installation is the installer on a pool. The zero value installs nothing. It is safe for concurrent use.
type installation struct {
	pool     *pool.Pool
	policy   *policy.Policy
	rate     *policy.Rate
	settings installSettings
	log      *zap.Logger

	mu    sync.Mutex
	index *packages.Index // made when it is first asked for: it takes pip to say what it is
}

// orNil returns i as an installer, or none where nothing can be installed.
func (i *installation) orNil() installer {
	if i.pool == nil {
		return nil
	}
	return i
}

// install checks in, installs it and tells logs and metrics. Every error is a *problem.
func (i *installation) install(ctx context.Context, in installInput, progress func(pool.InstallProgress)) (installOutput, error) {
	version := ""
	if in.Version != nil {
		version = *in.Version
	}
	req, err := policy.ParseRequirement(in.Package, version)
	if err != nil {
		p := newProblem(http.StatusInternalServerError, kindInternal, internalDetail)
		if wrong, ok := errors.AsType[*policy.InvalidError](err); ok {
			p = invalid(problemError{"body." + wrong.Field, wrong.Message})
		}
		p.count()
		return installOutput{}, p
	}
	client := clientOf(ctx)
	if ok, wait := i.rate.Allow(client); !ok {
		p := tooManyInstalls(i.settings.Rate, i.settings.RateWindow, wait)
		p.count()
		return installOutput{}, p
	}
	result, err := i.run(ctx, req, client, progress)
	if err != nil {
		p := asProblem(err)
		p.count()
		level := zapcore.InfoLevel
		if p.kind == kindInternal {
			level = zapcore.ErrorLevel
		}
		i.log.Log(level, "not installed", zap.String("package", req.String()), zap.String("type", string(p.kind)), zap.Error(err))
		return installOutput{}, p
	}
	switch result.Status {
	case pool.InstallNotFound, pool.InstallNoWheel, pool.InstallFailed:
		// Some names to import are also those of packages that nobody means.
		if meant := policy.Provider(req.Name); meant != "" && meant != req.Name {
			result.Message += fmt.Sprintf(" The module %s comes with the package %s: did you mean that?", req.Name, meant)
		}
	}
	sandboxMetrics.installed(result.Status)
	if result.Status != pool.InstallBlocked { // logged where it was decided
		i.log.Info("install ended", zap.String("package", req.String()), zap.String("client", client), zap.String("status", string(result.Status)),
			zap.String("version", result.Version), zap.Int("packages", len(result.Packages)), zap.Duration("duration", result.Duration), zap.String("message", result.Message))
	}
	return installOutputOf(result), nil
}

// tooManyInstalls is the refusal of a client that has asked for rate installs within window already.
func tooManyInstalls(rate int, window, wait time.Duration) *problem {
	p := newProblem(http.StatusTooManyRequests, kindRate, fmt.Sprintf("too many installs: at most %d within %s are allowed; try again in %s",
		rate, window, max(wait, time.Second).Round(time.Second)))
	p.RetryAfter = wait
	return p
}

func (i *installation) run(ctx context.Context, req policy.Requirement, client string, progress func(pool.InstallProgress)) (pool.InstallResult, error) {
	begin := time.Now()
	approve := func(d policy.Decision) (pool.InstallStatus, string) {
		if d.Allowed {
			return "", ""
		}
		i.log.Warn("package blocked", zap.String("package", req.String()), zap.String("blocked", d.Package), zap.String("rule", string(d.Rule)), zap.String("client", client))
		return statusOf(d), d.Message
	}
	if status, message := approve(i.policy.Check(req)); status != "" {
		return pool.InstallResult{Status: status, Message: message, Duration: time.Since(begin)}, nil
	}
	index, err := i.indexOf(ctx)
	if wrong, ok := errors.AsType[*settingsError](err); ok {
		return pool.InstallResult{Status: pool.InstallFailed, Message: wrong.Error(), Duration: time.Since(begin)}, nil
	}
	if err != nil {
		return pool.InstallResult{}, err
	}
	return i.pool.Install(ctx, pool.InstallRequest{ //nolint:wrapcheck // the table of errors knows it
		Name: req.Name, Extras: req.Extras, Specifier: req.Specifier, Satisfied: req.Satisfied,
		Index: index, BuildSource: i.settings.BuildSource,
		MaxDownload: i.settings.MaxDownload, MaxInstalled: i.settings.MaxInstalled, Timeout: i.settings.Timeout,
		Approve: func(set []pool.ResolvedPackage) (pool.InstallStatus, string) {
			return approve(i.policy.CheckResolved(req, resolvedOf(set)))
		},
		ApproveInstalled: func(bytes int64) (pool.InstallStatus, string) { return approve(i.policy.CheckInstalledSize(bytes)) },
		Progress:         progress,
	})
}

// resolvedOf is what pip chose, for the policy.
func resolvedOf(set []pool.ResolvedPackage) []policy.Resolved {
	resolved := make([]policy.Resolved, len(set))
	for n, one := range set {
		resolved[n] = policy.Resolved{Name: one.Name, Version: one.Version, DownloadBytes: one.Bytes, Hashed: one.Hashed, Wheel: one.Wheel,
			Yanked: one.Yanked, Direct: one.Direct}
	}
	return resolved
}

// statusOf is what a refusal by a rule is to the caller.
func statusOf(d policy.Decision) pool.InstallStatus {
	switch d.Rule {
	case policy.RuleDownloadSize, policy.RuleInstalledSize, policy.RuleCount:
		return pool.InstallTooLarge
	case policy.RuleSdist:
		return pool.InstallNoWheel
	default:
		return pool.InstallBlocked
	}
}

// settingsError is what the operator has to mend before anything can be installed.
type settingsError struct{ error }

// indexOf returns the index that the configuration names, or that pip is configured to use.
func (i *installation) indexOf(ctx context.Context) (*packages.Index, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.index != nil {
		return i.index, nil
	}
	config, err := i.pool.PipConfig(ctx)
	if errors.Is(err, pool.ErrNoPip) {
		return nil, &settingsError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("reading pip's configuration: %w", err)
	}
	if i.settings.Index != "" {
		config.IndexURL, config.ExtraIndexURLs, config.FindLinks, config.NoIndex = i.settings.Index, nil, nil, false
	}
	index, err := packages.NewIndex(config, packages.IndexOptions{ExtraHosts: i.settings.Hosts, UserAgent: "caddy-python-sandbox/" + buildVersion(), Logger: slog.New(zapslog.NewHandler(i.log.Core()))})
	if err != nil {
		return nil, &settingsError{fmt.Errorf("the package index cannot be used: %w", err)}
	}
	i.index = index
	return index, nil
}

// clientOf is whom the rate counts for: the client's address as Caddy sees it behind trusted proxies.
func clientOf(ctx context.Context) string {
	address, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	return address
}

func installOutputOf(r pool.InstallResult) installOutput {
	out := installOutput{
		Status: string(r.Status), Message: r.Message, InstallationTime: toSeconds(r.Duration),
		Success: r.Status == pool.InstallInstalled || r.Status == pool.InstallAlready,
	}
	if out.Success && r.Version != "" {
		out.InstalledVersion = &r.Version
	}
	for _, one := range r.Packages {
		out.Packages = append(out.Packages, packageVersion{one.Name, one.Version})
	}
	return out
}

var _ installer = (*installation)(nil)
