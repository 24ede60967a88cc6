// Package install resolves, downloads, unpacks and compiles packages, and switches a store to the new set. Installs run one after the
// other. An "install" is one such request; an "installer" is a confined process that does a part of it.
package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// Status says how an install ended. Callers see it.
type Status string

// The ways in which an install ends.
const (
	Installed Status = "installed"
	Already   Status = "already_installed"
	Blocked   Status = "blocked"   // by policy
	NotFound  Status = "not_found" // no such package, or no such version
	TooLarge  Status = "too_large"
	Conflict  Status = "conflict" // with what is installed, with itself, or with this Python
	NoWheel   Status = "no_wheel" // there is only source, which is not built
	TimedOut  Status = "timeout"
	Failed    Status = "failed"
)

// Statuses lists every Status.
var Statuses = []Status{Installed, Already, Blocked, NotFound, TooLarge,
	Conflict, NoWheel, TimedOut, Failed}

// Rules decide what an install may add. *policy.Policy implements them.
type Rules interface {
	// CheckResolved decides about the whole resolved set before its files are downloaded.
	CheckResolved(asked policy.Requirement, set []policy.Resolved) policy.Decision
	// CheckInstalledSize decides, before the store is switched, about the size of all installed packages on disk, in bytes.
	CheckInstalledSize(bytes int64) policy.Decision
}

// Request asks for a package. All fields but Client and Progress are required.
type Request struct {
	policy.Requirement

	// Rules decide what may be installed.
	Rules Rules
	// Index is where packages come from.
	Index *packages.Index
	// BuildSource lets source distributions be built, which runs their code in the installer.
	BuildSource bool
	// MaxDownload bounds what one install downloads, MaxInstalled what its wheels unpack to, both in bytes.
	MaxDownload, MaxInstalled int64
	// Timeout bounds the install itself, without its wait for earlier installs.
	Timeout time.Duration
	// Client names the client in the log.
	Client string
	// Progress, when not nil, is called with each change of progress. It must not block.
	Progress func(Progress)
}

// Phase is a part of an install.
type Phase string

// The phases of an install, in their order.
const (
	PhaseQueued      Phase = "queued"
	PhaseResolving   Phase = "resolving"
	PhaseDownloading Phase = "downloading"
	PhaseUnpacking   Phase = "unpacking"
	PhaseWarming     Phase = "warming"
)

// Progress says how far an install is.
type Progress struct {
	Phase Phase
	// Done and Total are bytes; Total is 0 when it is not known.
	Done, Total int64
}

// Result says how an install ended.
type Result struct {
	Status Status
	// Message says what happened and what to do about it, in sentences for the caller.
	Message string
	// Version is the installed version; "" unless Status is Installed or Already.
	Version string
	// Packages lists what was installed, dependencies included.
	Packages []packages.Package
	// Duration is the time that the caller waited, earlier installs included.
	Duration time.Duration
}

// refusal is an error that ends an install with a Result, which its caller can act on.
type refusal struct {
	status  Status
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status Status, format string, arguments ...any) error {
	return &refusal{status, fmt.Sprintf(format, arguments...)}
}

// install does the work of one install: resolve, approve, download, unpack, switch.
func (s *Installs) install(ctx context.Context, req Request) (Result, error) {
	req.Progress(Progress{Phase: PhaseQueued})
	work, err := s.host.Store.Begin(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("waiting for the installs before: %w", err)
	}
	defer work.End()
	ctx, cancel := context.WithTimeoutCause(ctx, req.Timeout, refuse(TimedOut,
		"%s was not installed within %s; nothing has changed. Try again, or ask the operator for a longer packages install_timeout.", req.Name, req.Timeout))
	defer cancel()
	result, err := (&ongoing{installs: s, req: req, work: work}).run(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// ongoing is one install under way.
type ongoing struct {
	installs *Installs
	req      Request
	work     *packages.Install
}

// approve returns the refusal of a decision that forbids the install, else nil.
func (i *ongoing) approve(d policy.Decision) error {
	if d.Allowed {
		return nil
	}
	i.installs.host.Logger.Warn("package blocked", "package", i.req.String(), "blocked", d.Package, "rule", string(d.Rule), "client", i.req.Client)
	return &refusal{StatusOf(d), d.Message}
}

// StatusOf is the status of an install that a rule has forbidden.
func StatusOf(d policy.Decision) Status {
	switch d.Rule {
	case policy.RuleDownloadSize, policy.RuleInstalledSize, policy.RuleCount:
		return TooLarge
	case policy.RuleSdist:
		return NoWheel
	default:
		return Blocked
	}
}

// run resolves, downloads and unpacks the packages, and switches to the new set.
func (i *ongoing) run(ctx context.Context) (Result, error) {
	req, base := i.req, i.work.Base()
	if version, ok, err := i.installs.provides(ctx, base, req.Requirement); err != nil {
		return Result{}, err
	} else if ok {
		return already(req.Name, version), i.follow(ctx)
	}
	if old, ok := base.Find(req.Name); ok { // the extras of the installed version are kept
		req.Extras = slices.Compact(slices.Sorted(slices.Values(slices.Concat(old.Extras, req.Extras))))
		i.req = req
	}
	req.Progress(Progress{Phase: PhaseResolving})
	page, err := req.Index.Lookup(ctx, req.Name)
	if err != nil {
		return Result{}, indexFailure(err)
	}
	if !page.Found {
		return Result{}, refuse(NotFound, "The index has no package named %q. Check the spelling: the name to import and the name to install can differ.", req.Name)
	}
	hosts := slices.Concat(req.Index.Hosts(), page.Hosts())
	resolved, err := i.resolve(ctx, page, hosts)
	if err != nil {
		return Result{}, err
	}
	if len(resolved) == 0 {
		version, _, err := i.installs.provides(ctx, base, policy.Requirement{Name: req.Name})
		return already(req.Name, version), err
	}
	wheels, err := i.fetch(ctx, resolved, hosts)
	if err != nil {
		return Result{}, err
	}
	added, err := i.unpack(ctx, wheels)
	if err != nil {
		return Result{}, err
	}
	for n := range added {
		if added[n].Name == req.Name {
			added[n].Requested, added[n].Specifier, added[n].Extras = true, req.Specifier, req.Extras
		} else if old, ok := base.Find(added[n].Name); ok {
			added[n].Requested, added[n].Specifier, added[n].Extras = old.Requested, old.Specifier, old.Extras
		}
	}
	if err := i.switchTo(ctx, added); err != nil {
		return Result{}, err
	}
	result := report(req.Name, added)
	if result.Version == "" { // the package itself was there, and only packages for its extras were added
		if result.Version, _, err = i.installs.provides(ctx, base, policy.Requirement{Name: req.Name, Specifier: req.Specifier}); err != nil {
			return Result{}, err
		}
	}
	return result, nil
}

// follow switches this server to the base of the install, if another server with the same directory has made that the current set.
func (i *ongoing) follow(ctx context.Context) error {
	current := i.installs.host.Store.Current()
	defer current.Release()
	if base := i.work.Base(); base.Number != current.Number {
		if err := i.work.Switch(ctx, base); err != nil {
			return fmt.Errorf("switching to the current set of packages: %w", err)
		}
	}
	return nil
}

// switchTo builds the set of the base with the added packages, and makes it the current one.
func (i *ongoing) switchTo(ctx context.Context, added []packages.Package) error {
	set := slices.Clone(added)
	var bytes int64
	for _, old := range i.work.Base().Packages {
		if old.Name == i.req.Name { // the package itself does not change, but has more extras now
			old.Requested, old.Extras = true, union(old.Extras, i.req.Extras)
		}
		if !slices.ContainsFunc(added, func(p packages.Package) bool { return p.Name == old.Name }) {
			set = append(set, old)
		}
	}
	for _, one := range set {
		bytes += one.Bytes
	}
	if err := i.approve(i.req.Rules.CheckInstalledSize(bytes)); err != nil {
		return err
	}
	next, err := i.work.Build(ctx, set)
	if err != nil {
		return fmt.Errorf("building the next set of packages: %w", err)
	}
	i.req.Progress(Progress{Phase: PhaseWarming})
	if err := i.work.Switch(ctx, next); err != nil {
		return fmt.Errorf("switching to the next set of packages: %w", err)
	}
	return nil
}

// union returns what is in a, b or both, sorted.
func union(a, b []string) []string {
	both := slices.Concat(a, b)
	slices.Sort(both)
	return slices.Compact(both)
}

func already(name, version string) Result {
	return Result{Status: Already, Version: version,
		Message: fmt.Sprintf("%s %s is installed already. Ask for a version, such as \">%s\", to change it.", name, version, version)}
}

func report(name string, added []packages.Package) Result {
	r := Result{Status: Installed, Packages: added}
	var others []string
	for _, one := range added {
		if one.Name == name {
			r.Version = one.Version
		} else {
			others = append(others, one.Name+" "+one.Version)
		}
	}
	r.Message = fmt.Sprintf("Installed %s %s", name, r.Version)
	if r.Version == "" { // only packages for its extras were added
		r.Message = "Installed what the extras of " + name + " need"
	}
	if len(others) > 0 {
		r.Message += " with " + strings.Join(others, ", ")
	}
	r.Message += ". The next execution can import it."
	return r
}

func mebibytes(bytes int64) string {
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// unpack checks, unpacks and compiles the wheels, and puts them into the store. It returns the packages, sorted by name.
func (i *ongoing) unpack(ctx context.Context, wheels []wheel) ([]packages.Package, error) {
	i.req.Progress(Progress{Phase: PhaseUnpacking})
	limits := packages.WheelLimits{MaxBytes: i.req.MaxInstalled, Forbidden: func(name string) bool {
		_, found := slices.BinarySearch(i.installs.host.Python.Modules, name)
		return found
	}}
	var added []packages.Package
	var fresh []*packages.Unpacked
	for _, w := range wheels {
		if w.stored != nil {
			added = append(added, *w.stored)
			continue
		}
		unpacked, err := i.work.Unpack(ctx, w.path, limits)
		if wrong, ok := errors.AsType[*packages.WheelError](err); ok && wrong.TooLarge {
			return nil, refuse(TooLarge, "The wheel %s unpacks to more than %s, which is what the operator's packages max_installed leaves for it; nothing has changed.", wrong.Wheel, mebibytes(limits.MaxBytes))
		} else if ok {
			return nil, refuse(Failed, "The wheel %s is refused: %s. Nothing has changed; ask for another version, or tell the package's authors.", wrong.Wheel, wrong.Reason)
		}
		if err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", filepath.Base(w.path), err)
		}
		limits.MaxBytes -= unpacked.Package.Bytes
		fresh = append(fresh, unpacked)
	}
	compiled, err := i.compile(ctx, fresh)
	if err != nil {
		return nil, err
	}
	for n, unpacked := range fresh {
		kept, err := i.work.Keep(unpacked, compiled[n])
		if err != nil {
			return nil, fmt.Errorf("keeping %s: %w", unpacked.Package.Name, err)
		}
		added = append(added, kept)
	}
	slices.SortFunc(added, func(a, b packages.Package) int { return strings.Compare(a.Name, b.Name) })
	return added, nil
}

// compile writes the bytecode of unpacked wheels in an installer. It returns the directory with each one's bytecode, "" for none.
func (i *ongoing) compile(ctx context.Context, fresh []*packages.Unpacked) ([]string, error) {
	if len(fresh) == 0 {
		return nil, nil
	}
	run := installerRun{dir: filepath.Join(i.work.Dir(), "compile"), maxBytes: i.req.MaxInstalled,
		task: installerTask{Kind: "compile", Env: i.environment()}}
	var compiled []string
	for n, unpacked := range fresh {
		out := filepath.Join(run.dir, "out", fmt.Sprint(n))
		source := readable{path: unpacked.Site}
		seen := unpacked.Site
		if i.installs.host.Plan.World == confine.WorldNamespaces {
			source.target = fmt.Sprintf("/trees/%d", n)
			seen = source.target
		}
		run.readable = append(run.readable, source)
		run.task.Trees = append(run.task.Trees, [2]string{seen, i.installs.inside(run.dir, out)})
		compiled = append(compiled, out)
	}
	answers, err := i.runTask(ctx, run)
	if err != nil {
		return nil, err
	}
	if answers.Status != 0 {
		return nil, fmt.Errorf("compiling failed: %s", process.LastLine(answers.Log))
	}
	for n, out := range compiled {
		if _, err := os.Stat(out); err != nil { // nothing of the wheel was compiled
			compiled[n] = ""
		}
	}
	return compiled, nil
}
