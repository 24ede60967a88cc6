package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// runTask runs one task of the install in an installer. Errors that the caller can act on are refusals.
func (i *ongoing) runTask(ctx context.Context, run installerRun) (installerAnswers, error) {
	if i.installs.host.Plan.World == confine.WorldProcess && i.installs.host.Plan.Order == confine.OrderRoot {
		// The installer runs as another user, who must pass through this directory. What is below belongs to that user or to Caddy.
		if err := os.Chmod(i.work.Dir(), 0o711); err != nil {
			return installerAnswers{}, err
		}
	}
	if run.task.Network {
		facts, err := i.installs.pip(ctx)
		if err != nil {
			return installerAnswers{}, err
		}
		if facts.Version == "" {
			return installerAnswers{}, refuse(Failed, "%s.", capital(ErrNoPip.Error()))
		}
		run.task.PipWheel = facts.Wheel
	}
	answers, err := i.installs.runInstaller(ctx, run)
	switch {
	case errors.Is(err, errNetworkFull) || errors.Is(err, errDiskFull):
		return answers, refuse(TooLarge, "What %s needs is larger than the operator's packages max_download allows (%s); nothing has changed.", i.req.Name, mebibytes(i.req.MaxDownload))
	}
	if refused, ok := errors.AsType[*hostsRefusedError](err); ok {
		if direct := directReference(answers.Log, refused.hosts); direct != "" {
			if err := i.approve(i.req.Rules.CheckResolved(i.req.Requirement, []policy.Resolved{{Name: direct, Direct: true}})); err != nil {
				return answers, err
			}
		}
		return answers, refuse(Failed, "The index sends the installer to %s, which is not one of its hosts; nothing has changed. The operator can allow it with packages { hosts %s }.",
			strings.Join(refused.hosts, ", "), strings.Join(refused.hosts, " "))
	}
	if err != nil && ctx.Err() == nil {
		i.installs.host.Logger.Error("installer failed", "package", i.req.Name, "task", run.task.Kind, "error", err)
		return answers, refuse(Failed, "The installer failed on the server's side; nothing has changed. Try again, or tell the operator, whose log says more.")
	}
	return answers, err
}

// environment returns the environment of an installer's task.
func (i *ongoing) environment() map[string]string {
	env := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
		"PIP_NO_COLOR": "1", "PIP_NO_CACHE_DIR": "1",
		// This backend of pip's reads the distributions on sys.path without importing anything from there.
		"_PIP_USE_IMPORTLIB_METADATA": "1",
		// A Linux distribution forbids pip to change the system's packages (PEP 668). Here it cannot.
		"PIP_BREAK_SYSTEM_PACKAGES": "1",
	}
	for _, pair := range i.req.Index.Environment() {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// networked returns a run of pip that may reach hosts.
func (i *ongoing) networked(kind string, hosts []string, arguments ...string) installerRun {
	run := installerRun{
		dir: filepath.Join(i.work.Dir(), kind), hosts: hosts, upstream: i.req.Index.Upstream(), maxBytes: i.req.MaxDownload,
		task:     installerTask{Kind: kind, Network: true, Arguments: arguments, Env: i.environment()},
		received: func(bytes int64) { i.req.Progress(Progress{Phase: PhaseResolving, Done: bytes}) },
	}
	for _, path := range i.req.Index.LocalPaths() {
		run.readable = append(run.readable, readable{path: path})
	}
	if base := i.work.Base(); base.Site != "" {
		run.task.Packages = base.Site
		source := readable{path: base.Site}
		if i.installs.host.Plan.World == confine.WorldNamespaces {
			run.task.Packages, source.target = confine.PackagesTarget, confine.PackagesTarget
		}
		run.readable = append(run.readable, source)
	}
	return run
}

// resolve lets pip choose versions, and returns what pip would install. Rules have not checked it yet.
func (i *ongoing) resolve(ctx context.Context, page packages.Page, hosts []string) ([]chosen, error) {
	arguments := []string{"--only-binary", ":all:"}
	if i.req.BuildSource {
		if i.installs.host.Plan.World != confine.WorldNamespaces {
			return nil, refuse(Failed, "packages sdist allow needs namespaces, which this system refuses; the operator has to take it out.")
		}
		arguments = nil
	}
	arguments = append(arguments, "--", requirement(i.req.Name, i.req.Extras, i.req.Specifier))
	for _, root := range i.work.Base().Packages {
		if root.Requested && root.Name != i.req.Name {
			// Packages that were asked for in earlier installs keep their specifier, and do not get an older version.
			arguments = append(arguments, requirement(root.Name, root.Extras, cmp.Or(root.Specifier, ">="+root.Version)))
		}
	}
	run := i.networked("resolve", hosts, arguments...)
	run.task.SearchSeconds, run.task.SearchBytes = min(maxSearch, i.req.Timeout/2).Seconds(), i.req.MaxDownload/2
	answers, err := i.runTask(ctx, run)
	if cause := i.deadEnd(ctx, answers, err); cause != nil {
		i.installs.host.Logger.Info("pip found nothing to choose", "package", i.req.Name, "specifier", i.req.Specifier, "dead_ends", len(answers.DeadEnds), "log", tailOf(answers.Log, 2000))
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	if answers.Status != 0 {
		i.installs.host.Logger.Info("pip could not resolve", "package", i.req.Name, "specifier", i.req.Specifier, "log", tailOf(answers.Log, 2000))
		return nil, pipFailure(i.req, page, i.installs.host.Python.Version, answers.Log)
	}
	if len(answers.Broken) > 0 {
		return nil, refuse(Conflict, "%s cannot be installed beside what is there: %s. Nothing has changed; ask for another version.", i.req.Name, strings.Join(answers.Broken, "; "))
	}
	return answers.Chosen, nil
}

// requirement returns a requirement in the form of PEP 508.
func requirement(name string, extras []string, specifier string) string {
	if len(extras) > 0 {
		name += "[" + strings.Join(extras, ",") + "]"
	}
	return name + specifier
}

func tailOf(text string, limit int) string {
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	return strings.ToValidUTF8(text, "?")
}

// wheel is a file that must be unpacked, or a package that the store has already.
type wheel struct {
	path   string
	stored *packages.Package
}

// fetch checks the resolved set by the rules, and then downloads or builds the wheels that the store does not have.
func (i *ongoing) fetch(ctx context.Context, resolved []chosen, hosts []string) ([]wheel, error) {
	var wheels []wheel
	var wanted []packages.Wanted
	var built []string
	set := make([]policy.Resolved, len(resolved))
	var missing []int // indices of set, in the order of wanted
	for n, c := range resolved {
		isWheel := strings.HasSuffix(strings.SplitN(c.URL, "#", 2)[0], ".whl")
		set[n] = policy.Resolved{Name: c.Name, Version: c.Version, Hashed: c.SHA256 != "", Wheel: isWheel, Yanked: c.Yanked, Direct: c.Direct, DownloadBytes: -1}
		if stored, ok := i.work.Stored(c.SHA256); ok && isWheel {
			set[n].DownloadBytes = 0
			wheels = append(wheels, wheel{stored: &stored})
			continue
		}
		if !isWheel {
			built = append(built, c.URL)
			continue
		}
		missing = append(missing, n)
		wanted = append(wanted, packages.Wanted{Name: c.Name, Version: c.Version, URL: c.URL, SHA256: c.SHA256})
	}
	for n, bytes := range i.req.Index.Sizes(ctx, wanted, hosts) {
		set[missing[n]].DownloadBytes = bytes
	}
	if err := i.approve(i.req.Rules.CheckResolved(i.req.Requirement, set)); err != nil {
		return nil, err
	}
	dir := filepath.Join(i.work.Dir(), "wheels")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	i.req.Progress(Progress{Phase: PhaseDownloading})
	paths, err := i.req.Index.Download(ctx, dir, wanted, packages.DownloadOptions{
		MaxBytes: i.req.MaxDownload, Hosts: hosts,
		Progress: func(done, total int64) {
			i.req.Progress(Progress{Phase: PhaseDownloading, Done: done, Total: max(0, total)})
		},
	})
	if err != nil {
		return nil, indexFailure(err)
	}
	if len(built) > 0 {
		made, err := i.build(ctx, built, hosts)
		if err != nil {
			return nil, err
		}
		paths = append(paths, made...)
	}
	for _, path := range paths {
		wheels = append(wheels, wheel{path: path})
	}
	return wheels, nil
}

// build makes wheels of source distributions in an installer, which runs the distributions' own code.
func (i *ongoing) build(ctx context.Context, urls, hosts []string) ([]string, error) {
	run := i.networked("build", hosts, append([]string{"--"}, urls...)...)
	run.task.Packages = "" // a build gets its build requirements, not the installed packages
	answers, err := i.runTask(ctx, run)
	if err != nil {
		return nil, err
	}
	if answers.Status != 0 {
		return nil, refuse(Failed, "Building a wheel from source failed%s. Nothing has changed; ask for a version that comes as a wheel.", process.LastLine(answers.Log))
	}
	made, err := filepath.Glob(filepath.Join(run.dir, "wheels", "*.whl"))
	if err == nil && len(made) != len(urls) {
		err = fmt.Errorf("%d wheels were built of %d source distributions", len(made), len(urls))
	}
	return made, err
}
