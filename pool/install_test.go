package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// newTestIndex starts an index with wheels. The function makes requests for its packages; version "" means any.
func newTestIndex(t *testing.T, wheels ...index.Wheel) (*index.Server, func(name, version string) install.Request) {
	t.Helper()
	server := index.New()
	t.Cleanup(server.Close)
	server.AddWheels(wheels...)
	x, err := packages.NewIndex(packages.PipConfig{IndexURL: server.URL()}, packages.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return server, func(name, version string) install.Request {
		req := install.Request{Requirement: policy.Requirement{Name: name}, Index: x, Rules: noRules{},
			MaxDownload: 10 * mib, MaxInstalled: 100 * mib, Timeout: time.Minute}
		if version != "" {
			req.Specifier = "==" + version
		}
		return req
	}
}

// noRules allow everything.
type noRules struct{}

func (noRules) CheckResolved(policy.Requirement, []policy.Resolved) policy.Decision {
	return policy.Decision{Allowed: true}
}
func (noRules) CheckInstalledSize(int64) policy.Decision { return policy.Decision{Allowed: true} }

// brokenRules panic.
type brokenRules struct{ noRules }

func (brokenRules) CheckResolved(policy.Requirement, []policy.Resolved) policy.Decision {
	panic("a bug")
}

// testInstalls maps each test's pool to its installs.
var testInstalls sync.Map

// installsOf returns the installs of a pool. The test closes them before the pool.
func installsOf(t *testing.T, p *Pool) *install.Installs {
	t.Helper()
	if made, ok := testInstalls.Load(p); ok {
		return made.(*install.Installs)
	}
	made := install.New(p.InstallHost())
	testInstalls.Store(p, made)
	t.Cleanup(func() {
		made.Close()
		testInstalls.Delete(p)
	})
	return made
}

func installPackage(t *testing.T, p *Pool, req install.Request, want install.Status) install.Result {
	t.Helper()
	r, err := installsOf(t, p).Install(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != want || r.Message == "" {
		t.Fatalf("got %+v, want %s", r, want)
	}
	return r
}

func module(name, version string) index.Wheel {
	return index.Wheel{Name: name, Version: version, Files: map[string]string{strings.ReplaceAll(name, "-", "_") + ".py": fmt.Sprintf("VERSION = %q\n", version)}}
}

func TestNextExecutionHasWhatWasInstalled(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 2, Templates: 1})
	_, ask := newTestIndex(t, module("sandbox-one", "1.0"), module("sandbox-one", "2.0"))
	const version = "import sandbox_one; print(sandbox_one.VERSION)"
	if r := execute(t, p, version, 10*time.Second); !strings.Contains(r.Stderr, "No module named 'sandbox_one'") {
		t.Fatalf("got %+v", r)
	}
	// A program that runs during the install keeps the old set of packages.
	running := make(chan Result, 1)
	go func() {
		r, _ := p.Execute(context.Background(), Request{Code: "print('here', flush=True)\nimport time, importlib.util\ntime.sleep(2)\nprint(importlib.util.find_spec('sandbox_one'))", Timeout: 30 * time.Second})
		running <- r
	}()
	eventually(t, 5*time.Second, "it runs", func() bool { return p.Stat().Workers[StateLeased] == 1 })
	if r := installPackage(t, p, ask("sandbox-one", "1.0"), install.Installed); r.Version != "1.0" || len(r.Packages) != 1 {
		t.Fatalf("got %+v", r)
	}
	if idle := p.Stat().Workers[StateIdle]; idle < 2 {
		t.Errorf("%d workers are parked right after the install", idle)
	}
	if r := execute(t, p, version, 10*time.Second); r.Stdout != "1.0\n" {
		t.Errorf("got %+v", r)
	}
	if r := <-running; r.Status != StatusOK || r.Stdout != "here\nNone\n" {
		t.Errorf("the one that ran got %+v", r)
	}
	installPackage(t, p, ask("sandbox-one", ""), install.Already)
	installPackage(t, p, ask("sandbox-one", "2.0"), install.Installed)
	if r := execute(t, p, version, 10*time.Second); r.Stdout != "2.0\n" {
		t.Errorf("got %+v", r)
	}
	// A Python that a program starts can import the package, too.
	if r := execute(t, p, "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', "+fmt.Sprintf("%q", version)+"], capture_output=True, text=True).stdout)", 10*time.Second); r.Stdout != "2.0\n\n" {
		t.Errorf("got %+v", r)
	}
	eventually(t, 10*time.Second, "what served the old sets is gone", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.lanes) == p.current.lanes
	})
}

func TestSetSurvivesItsPool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, ask := newTestIndex(t, module("sandbox-kept", "1.0"))
	first := newTestPool(t, Config{PackagesDir: dir, Idle: 1, Templates: 1})
	beside := newTestPool(t, Config{PackagesDir: dir, Idle: 1, Templates: 1, Max: 1})
	installPackage(t, first, ask("sandbox-kept", ""), install.Installed)
	// Other pools with the same directory, such as that of the next configuration, have the package too.
	for _, p := range []*Pool{first, beside, newTestPool(t, Config{PackagesDir: dir, Idle: 1, Templates: 1, Max: 2})} {
		if r := execute(t, p, "import sandbox_kept; print(sandbox_kept.VERSION)", 10*time.Second); r.Stdout != "1.0\n" {
			t.Errorf("got %+v", r)
		}
	}
}

func TestPreloadGivesWayToWhatWasInstalled(t *testing.T) {
	t.Parallel()
	roots := []string{
		moduleDir(t, "sandbox_pre", "VERSION = 'of the operator'\n"),
		moduleDir(t, "sandbox_user", "import sandbox_pre\n"),
	}
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), PythonPath: roots, Preload: []string{"sandbox_user", "json"}, Idle: 1, Templates: 1})
	_, ask := newTestIndex(t, module("sandbox-pre", "3.0"))
	const code = "import sys; print('sandbox_pre' in sys.modules, 'json' in sys.modules)"
	if r := execute(t, p, code, 10*time.Second); r.Stdout != "True True\n" {
		t.Fatalf("got %+v", r)
	}
	installPackage(t, p, ask("sandbox-pre", ""), install.Installed)
	if r := execute(t, p, code, 10*time.Second); r.Stdout != "False True\n" {
		t.Errorf("got %+v", r)
	}
}

func TestInstallsOfTheSameAreOne(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	server, ask := newTestIndex(t)
	wheel := module("sandbox-same", "1.0").File()
	wheel.Delay = 300 * time.Millisecond
	server.Add(index.Project{Name: "sandbox-same", Files: []index.File{wheel}})
	var all sync.WaitGroup
	results := make([]install.Result, 5)
	for n := range results {
		all.Go(func() { results[n], _ = installsOf(t, p).Install(t.Context(), ask("sandbox-same", "")) })
	}
	all.Wait()
	installed := 0
	for _, r := range results {
		if r.Version != "1.0" {
			t.Errorf("got %+v", r)
		}
		if r.Status == install.Installed {
			installed++
		}
	}
	if installed == 0 || server.WheelDownloads() != 1 {
		t.Errorf("%d say that they installed it, in %d downloads", installed, server.WheelDownloads())
	}
}

func TestAnInstallThatNobodyWaitsForIsGivenUp(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	server, ask := newTestIndex(t)
	wheel := module("sandbox-slow", "1.0").File()
	wheel.Delay = time.Hour
	server.Add(index.Project{Name: "sandbox-slow", Files: []index.File{wheel}})
	server.AddWheels(module("sandbox-quick", "1.0"))
	ctx, cancel := context.WithCancel(t.Context())
	req := ask("sandbox-slow", "")
	req.Progress = func(progress install.Progress) {
		if progress.Phase == install.PhaseDownloading {
			cancel()
		}
	}
	if _, err := installsOf(t, p).Install(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	installPackage(t, p, ask("sandbox-quick", ""), install.Installed) // the abandoned install does not hold this one up
	if generation, set, _, err := installsOf(t, p).InstalledPackages(t.Context()); err != nil || generation == 0 || len(set) != 1 {
		t.Errorf("got %d %+v %v", generation, set, err)
	}
}

func TestInstallTakesItsTimeOnly(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	server, ask := newTestIndex(t)
	wheel := module("sandbox-slow", "1.0").File()
	wheel.Delay = time.Hour
	server.Add(index.Project{Name: "sandbox-slow", Files: []index.File{wheel}})
	req := ask("sandbox-slow", "")
	req.Timeout = 2 * time.Second
	if r := installPackage(t, p, req, install.TimedOut); !strings.Contains(r.Message, "install_timeout") {
		t.Errorf("got %q", r.Message)
	}
}

// Neither an installer nor a template imports modules of installed packages or runs their .pth files.
func TestInstalledCodeRunsInNoInstallerAndNoTemplate(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	trap := "raise SystemExit('a package ran')\n"
	_, ask := newTestIndex(t, module("sandbox-after", "1.0"), index.Wheel{Name: "sandbox-trap", Version: "1.0", Files: map[string]string{
		"sandbox_trap.py": "VERSION = '1'\n", "keyring.py": trap, "pip/__init__.py": trap, "packaging/__init__.py": trap, "brotli.py": trap,
		"sandbox_trap.pth": "import sandbox_trap; raise SystemExit\n",
	}})
	installPackage(t, p, ask("sandbox-trap", ""), install.Installed)
	installPackage(t, p, ask("sandbox-after", ""), install.Installed)
	if r := execute(t, p, "import sandbox_after, sys; print('sandbox_trap' in sys.modules)", 10*time.Second); r.Stdout != "False\n" {
		t.Errorf("got %+v", r)
	}
}

// A panic during an install becomes its error, and the next install works.
func TestAPanicInAnInstallIsItsOwn(t *testing.T) {
	t.Parallel()
	_, ask := newTestIndex(t, module("sandbox-one", "1.0"))
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	broken := ask("sandbox-one", "")
	broken.Rules = brokenRules{}
	if r, err := installsOf(t, p).Install(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("got %+v, %v", r, err)
	}
	installPackage(t, p, ask("sandbox-one", "1.0"), install.Installed)
}
