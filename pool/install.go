package pool

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
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
)

// InstallStatus says how an install ended, as the caller is told.
type InstallStatus string

// The ways in which an install ends.
const (
	InstallInstalled InstallStatus = "installed"
	InstallAlready   InstallStatus = "already_installed"
	InstallBlocked   InstallStatus = "blocked"   // by policy
	InstallNotFound  InstallStatus = "not_found" // no such package, or no such version
	InstallTooLarge  InstallStatus = "too_large"
	InstallConflict  InstallStatus = "conflict" // with what is installed, with itself, or with this Python
	InstallNoWheel   InstallStatus = "no_wheel" // there is only source, which is not built
	InstallTimeout   InstallStatus = "timeout"
	InstallFailed    InstallStatus = "failed"
)

// InstallStatuses lists every InstallStatus.
var InstallStatuses = []InstallStatus{InstallInstalled, InstallAlready, InstallBlocked, InstallNotFound, InstallTooLarge,
	InstallConflict, InstallNoWheel, InstallTimeout, InstallFailed}

// InstallRequest asks for a package. All fields but Progress are required.
type InstallRequest struct {
	// Name is canonical (PEP 503), Extras too; Specifier is one of PEP 440, "" for any version.
	Name      string
	Extras    []string
	Specifier string
	// Satisfied says whether a version is one that was asked for.
	Satisfied func(version string) bool

	// Index is where packages come from.
	Index *packages.Index
	// BuildSource lets source distributions be built, which runs their code in the installer.
	BuildSource bool
	// MaxDownload bounds what one install fetches, MaxInstalled what its wheels unpack to, in bytes.
	MaxDownload, MaxInstalled int64
	// Timeout bounds the work, not the wait for installs before it.
	Timeout time.Duration

	// Approve decides about the whole resolved set before anything of it is fetched. It returns "" or how the install
	// ends, and a sentence for the caller.
	Approve func(set []ResolvedPackage) (InstallStatus, string)
	// ApproveInstalled decides likewise about what all installed packages would hold on disk, in bytes.
	ApproveInstalled func(bytes int64) (InstallStatus, string)
	// Progress, when not nil, is told what goes on. It must not block.
	Progress func(InstallProgress)
}

// ResolvedPackage is a package that an install would bring.
type ResolvedPackage struct {
	Name, Version string
	Bytes         int64 // to be fetched; -1 when the index does not say, 0 when it is here already
	Hashed        bool  // the index says what it hashes to
	Wheel         bool
	Yanked        bool
	Direct        bool // from a URL that another package names, instead of the index
}

// InstallPhase is a part of an install.
type InstallPhase string

// The phases of an install, in their order.
const (
	PhaseQueued      InstallPhase = "queued"
	PhaseResolving   InstallPhase = "resolving"
	PhaseDownloading InstallPhase = "downloading"
	PhaseUnpacking   InstallPhase = "unpacking"
	PhaseWarming     InstallPhase = "warming"
)

// InstallProgress is where an install stands.
type InstallProgress struct {
	Phase InstallPhase
	// Done and Total are bytes; Total is 0 when it is not known.
	Done, Total int64
}

// InstallResult is how an install ended.
type InstallResult struct {
	Status InstallStatus
	// Message is for the caller: what happened and what to do about it.
	Message string
	// Version is what is there now; "" unless installed or already so.
	Version string
	// Packages lists what was installed, dependencies included.
	Packages []packages.Package
	// Duration includes the wait for installs before.
	Duration time.Duration
}

// refusal ends an install with a result that is not a failure of ours.
type refusal struct {
	status  InstallStatus
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status InstallStatus, format string, arguments ...any) error {
	return &refusal{status, fmt.Sprintf(format, arguments...)}
}

// install does the work of one install: resolve, approve, download, unpack, switch.
func (p *Pool) install(ctx context.Context, req InstallRequest) (InstallResult, error) {
	req.Progress(InstallProgress{Phase: PhaseQueued})
	work, err := p.store.Begin(ctx)
	if err != nil {
		return InstallResult{}, fmt.Errorf("waiting for the installs before: %w", err)
	}
	defer work.End()
	ctx, cancel := context.WithTimeoutCause(ctx, req.Timeout, refuse(InstallTimeout,
		"%s was not installed within %s; nothing has changed. Try again, or ask the operator for a longer packages install_timeout.", req.Name, req.Timeout))
	defer cancel()
	result, err := (&installation{pool: p, req: req, work: work}).run(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// installation is one install under way.
type installation struct {
	pool *Pool
	req  InstallRequest
	work *packages.Install
}

// run resolves, fetches, unpacks and switches, or returns why not.
func (i *installation) run(ctx context.Context) (InstallResult, error) {
	req, base := i.req, i.work.Base()
	if version, ok, err := i.pool.provides(ctx, base, req); err != nil {
		return InstallResult{}, err
	} else if ok {
		return already(req.Name, version), i.follow(ctx)
	}
	if old, ok := base.Find(req.Name); ok { // another version has the extras that this one had
		req.Extras = slices.Compact(slices.Sorted(slices.Values(slices.Concat(old.Extras, req.Extras))))
		i.req = req
	}
	req.Progress(InstallProgress{Phase: PhaseResolving})
	page, err := req.Index.Lookup(ctx, req.Name)
	if err != nil {
		return InstallResult{}, indexFailure(err)
	}
	if !page.Found {
		return InstallResult{}, refuse(InstallNotFound, "The index has no package named %q. Check the spelling: the name to import and the name to install can differ.", req.Name)
	}
	hosts := slices.Concat(req.Index.Hosts(), page.Hosts())
	resolved, err := i.resolve(ctx, page, hosts)
	if err != nil {
		return InstallResult{}, err
	}
	if len(resolved) == 0 {
		version, _, err := i.pool.provides(ctx, base, InstallRequest{Name: req.Name, Satisfied: func(string) bool { return true }})
		return already(req.Name, version), err
	}
	wheels, err := i.fetch(ctx, resolved, hosts)
	if err != nil {
		return InstallResult{}, err
	}
	added, err := i.unpack(ctx, wheels)
	if err != nil {
		return InstallResult{}, err
	}
	for n := range added {
		if added[n].Name == req.Name {
			added[n].Requested, added[n].Specifier, added[n].Extras = true, req.Specifier, req.Extras
		} else if old, ok := base.Find(added[n].Name); ok {
			added[n].Requested, added[n].Specifier, added[n].Extras = old.Requested, old.Specifier, old.Extras
		}
	}
	if err := i.switchTo(ctx, added); err != nil {
		return InstallResult{}, err
	}
	result := installed(req.Name, added)
	if result.Version == "" { // only what its extras need was missing
		if result.Version, _, err = i.pool.provides(ctx, base, InstallRequest{Name: req.Name, Satisfied: req.Satisfied}); err != nil {
			return InstallResult{}, err
		}
	}
	return result, nil
}

// follow switches to the base where another server with the same directory has made it current.
func (i *installation) follow(ctx context.Context) error {
	current := i.pool.store.Current()
	defer current.Release()
	if base := i.work.Base(); base.Number != current.Number {
		if err := i.work.Switch(ctx, base); err != nil {
			return fmt.Errorf("switching to the current set of packages: %w", err)
		}
	}
	return nil
}

// switchTo makes the base with what was added the current set.
func (i *installation) switchTo(ctx context.Context, added []packages.Package) error {
	set := slices.Clone(added)
	var bytes int64
	for _, old := range i.work.Base().Packages {
		if old.Name == i.req.Name { // it stays, and gets more extras
			old.Requested, old.Extras = true, union(old.Extras, i.req.Extras)
		}
		if !slices.ContainsFunc(added, func(p packages.Package) bool { return p.Name == old.Name }) {
			set = append(set, old)
		}
	}
	for _, one := range set {
		bytes += one.Bytes
	}
	if status, message := i.req.ApproveInstalled(bytes); status != "" {
		return &refusal{status, message}
	}
	next, err := i.work.Build(ctx, set)
	if err != nil {
		return fmt.Errorf("building the next set of packages: %w", err)
	}
	i.req.Progress(InstallProgress{Phase: PhaseWarming})
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

func already(name, version string) InstallResult {
	return InstallResult{Status: InstallAlready, Version: version,
		Message: fmt.Sprintf("%s %s is installed already. Ask for a version, such as \">%s\", to change it.", name, version, version)}
}

func installed(name string, added []packages.Package) InstallResult {
	r := InstallResult{Status: InstallInstalled, Packages: added}
	var others []string
	for _, one := range added {
		if one.Name == name {
			r.Version = one.Version
		} else {
			others = append(others, one.Name+" "+one.Version)
		}
	}
	r.Message = fmt.Sprintf("Installed %s %s", name, r.Version)
	if r.Version == "" { // only what an extra needs
		r.Message = "Installed what the extras of " + name + " need"
	}
	if len(others) > 0 {
		r.Message += " with " + strings.Join(others, ", ")
	}
	r.Message += ". The next execution can import it."
	return r
}

func mebibytes(bytes int64) string {
	return fmt.Sprintf("%.1f MiB", float64(bytes)/mib)
}

// unpack checks and unpacks wheels, compiles them and puts them into the store.
func (i *installation) unpack(ctx context.Context, wheels []wheel) ([]packages.Package, error) {
	i.req.Progress(InstallProgress{Phase: PhaseUnpacking})
	limits := packages.WheelLimits{MaxBytes: i.req.MaxInstalled, Forbidden: func(name string) bool {
		_, found := slices.BinarySearch(i.pool.python.modules, name)
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
			return nil, refuse(InstallTooLarge, "The wheel %s unpacks to more than %s, which is what the operator's packages max_installed leaves for it; nothing has changed.", wrong.Wheel, mebibytes(limits.MaxBytes))
		} else if ok {
			return nil, refuse(InstallFailed, "The wheel %s is refused: %s. Nothing has changed; ask for another version, or tell the package's authors.", wrong.Wheel, wrong.Reason)
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

// compile writes the bytecode of unpacked wheels and returns the directory of each.
func (i *installation) compile(ctx context.Context, fresh []*packages.Unpacked) ([]string, error) {
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
		if i.pool.plan.World == confine.WorldNamespaces {
			source.target = fmt.Sprintf("/trees/%d", n)
			seen = source.target
		}
		run.readable = append(run.readable, source)
		run.task.Trees = append(run.task.Trees, [2]string{seen, i.pool.inside(run.dir, out)})
		compiled = append(compiled, out)
	}
	answers, err := i.runTask(ctx, run)
	if err != nil {
		return nil, err
	}
	if answers.Status != 0 {
		return nil, fmt.Errorf("compiling failed: %s", lastLine(answers.Log))
	}
	for n, out := range compiled {
		if _, err := os.Stat(out); err != nil { // there was nothing to compile
			compiled[n] = ""
		}
	}
	return compiled, nil
}
