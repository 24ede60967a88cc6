package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// confine starts the first template: in namespaces where the system has them, otherwise without, where the configuration accepts that.
// It runs a test program to see that the guarantees hold, and sets p.plan and p.guarantees.
func (p *Pool) confine(ctx context.Context, sys confine.System, set *packages.Generation) (*template, error) {
	if p.cfg.Isolation == IsolationNone {
		const reason = "isolation is none"
		p.log.Warn("user code is not confined", "isolation", string(p.cfg.Isolation), "reason", reason)
		sys.Landlock, sys.Seccomp = 0, false
		p.guarantees = confine.Guarantees(sys, confine.WorldProcess, reason)
		for i := range p.guarantees {
			p.guarantees[i] = Guarantee{Name: p.guarantees[i].Name, Layers: []string{}, Reason: reason}
		}
		return p.withoutNamespaces(ctx, sys, set)
	}
	t, err := p.tryNamespaces(ctx, sys, set)
	if err == nil {
		p.guarantees = confine.Guarantees(sys, confine.WorldNamespaces, "")
	} else {
		lack := lackOfNamespaces(err, sys.Euid)
		if lack == "" {
			return nil, describeStart(err)
		}
		p.guarantees = confine.Guarantees(sys, confine.WorldProcess, lack)
		if err := p.gap(); err != nil {
			return nil, err // before any program runs without namespaces
		}
		if t, err = p.withoutNamespaces(ctx, sys, set); err != nil {
			return nil, err
		}
	}
	p.delegateCgroup(sys)
	err = p.probe(ctx, t, sys)
	if err == nil {
		err = p.gap()
	}
	if err != nil {
		t.Stop()
		p.group.Remove()
		return nil, err
	}
	for _, g := range p.guarantees {
		if len(g.Layers) == 0 {
			p.log.Warn("a guarantee about user code is not held", "isolation", string(p.cfg.Isolation), "guarantee", g.Name, "reason", g.Reason)
		} else {
			p.log.Info("a guarantee about user code is held", "guarantee", g.Name, "layers", strings.Join(g.Layers, ", "))
		}
	}
	return t, nil
}

// delegateCgroup uses control groups where the system offers them.
func (p *Pool) delegateCgroup(sys confine.System) {
	group, err := cgroup.New(cgroup.Own(), sys.Euid, p.cfg.Memory+p.cfg.Scratch, p.cfg.Processes+1) // files in scratch count too, and the lane itself
	if err != nil {
		p.log.Info("control groups are not used", "reason", err.Error())
		return
	}
	p.group = group
	bounds := &p.guarantees[confine.GuaranteeBounds]
	bounds.Layers, bounds.Reason = append(bounds.Layers, confine.LayerCgroup), ""
	p.log.Info("control groups are used", "group", group.Dir)
}

// gap returns the error with which isolation strict refuses to start when some guarantee has no layer. In other modes it is nil.
func (p *Pool) gap() error {
	gap := confine.FirstGap(p.guarantees)
	if gap == nil || p.cfg.Isolation != IsolationStrict {
		return nil
	}
	return fmt.Errorf("isolation strict: the guarantee %q is not held, since %s; "+
		"allow user namespaces for Caddy or run it on a newer kernel, or set isolation best_effort to start without the guarantee", gap.Name, gap.Reason)
}

// withoutNamespaces starts the first template without namespaces, with a scratch directory that its lanes share.
func (p *Pool) withoutNamespaces(ctx context.Context, sys confine.System, set *packages.Generation) (*template, error) {
	var err error
	if p.scratchDir, err = os.MkdirTemp("", "python-sandbox-"); err != nil {
		return nil, fmt.Errorf("making a scratch directory: %w; set TMPDIR to a directory that Caddy may write to", err)
	}
	if p.plan, err = confine.New(p.cfg.limits(), p.python.Sources(p.cfg.PythonPath, p.cfg.Preload), sys, confine.WorldProcess, p.scratchDir); err != nil {
		return nil, err
	}
	if err = p.python.Commands.Write(p.python.Executable, filepath.Join(p.scratchDir, confine.CommandsDir)); err != nil {
		return nil, fmt.Errorf("making the command python: %w", err)
	}
	if sys.Euid == 0 {
		if dir := closedTo(p.python.Executable); dir != "" {
			return nil, fmt.Errorf("python %s cannot be used as root without namespaces: the sandbox's unprivileged id may not enter %s; "+
				"choose an interpreter that everybody may read, such as /usr/bin/python3", p.python.Executable, dir)
		}
		if dir := closedTo(p.cfg.PackagesDir + "/"); p.cfg.PackagesDir != "" && dir != "" {
			return nil, &PackagesDirError{Dir: p.cfg.PackagesDir, Closed: dir}
		}
		// Each lane makes directories here, as an id of its own that cannot list or remove the others'.
		if err := os.Chmod(p.scratchDir, 0o733|os.ModeSticky); err != nil {
			return nil, fmt.Errorf("opening the scratch directory: %w", err)
		}
	}
	p.countOthers(sys)
	t, err := startTemplate(ctx, p.python, p.plan.WithPackages(siteOf(set)))
	return t, describeStart(err)
}

func (p *Pool) tryNamespaces(ctx context.Context, sys confine.System, set *packages.Generation) (*template, error) {
	if sys.Euid == 0 && !hasCapability(unix.CAP_SYS_ADMIN) {
		return nil, &process.StepError{Step: "creating namespaces", Reason: "root without CAP_SYS_ADMIN: run Caddy as an ordinary user, or give it the capability"}
	}
	if dir := coveredByScratch(p.cfg, p.python); dir != "" {
		return nil, fmt.Errorf("%s lies under a directory that is each execution's own scratch: "+
			"choose a python and python_path outside of /tmp and /var/tmp", dir)
	}
	var err error
	if p.plan, err = confine.New(p.cfg.limits(), p.python.Sources(p.cfg.PythonPath, p.cfg.Preload), sys, confine.WorldNamespaces, ""); err != nil {
		return nil, err
	}
	p.countOthers(sys)
	return startTemplate(ctx, p.python, p.plan.WithPackages(siteOf(set)))
}

// countOthers prepares to count the other processes of the user under which workers run, where RLIMIT_NPROC counts those too. That is
// so when a lane has no user of its own. Otherwise p.others is nil. It also sets what the watches of such a user count as.
func (p *Pool) countOthers(sys confine.System) {
	p.others = nil
	if !p.plan.LimitsProcesses() {
		p.others = &processCount{uid: sys.Euid}
	}
	p.watches = newWatchRate(p.cfg.Memory, hostID(p.plan, 0) == 0, p.cfg.Max)
}

// lackOfNamespaces returns why the system refuses namespaces, or "" when err is something else.
func lackOfNamespaces(err error, euid int) string {
	var step *process.StepError
	if !errors.As(err, &step) || strings.HasPrefix(step.Step, "preload") || step.Step == "confining" {
		return ""
	}
	for _, knob := range []struct{ path, closed, name string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "user namespaces are forbidden by kernel.unprivileged_userns_clone = 0"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "user namespaces are forbidden by kernel.apparmor_restrict_unprivileged_userns = 1"},
	} {
		text, readErr := os.ReadFile(knob.path)
		if readErr == nil && strings.TrimSpace(string(text)) == knob.closed && (euid != 0 || knob.closed == "0") {
			return knob.name
		}
	}
	return fmt.Sprintf("the system refuses namespaces (%s), as the seccomp profile of a container does", step)
}

// describeStart names the word of the configuration that a template's failure is about.
func describeStart(err error) error {
	var step *process.StepError
	if errors.As(err, &step) && strings.HasPrefix(step.Step, "preload") {
		return fmt.Errorf("%s failed: %s; install the module for this interpreter or take it out of preload", step.Step, step.Reason)
	}
	if errors.As(err, &step) || errors.Is(err, process.ErrGone) {
		return fmt.Errorf("python does not start in its confinement: %w", err)
	}
	return err
}

// coveredByScratch returns a directory that user code imports from and that the scratch mount would hide, or "".
func coveredByScratch(cfg Config, python process.Interpreter) string {
	for _, dir := range slices.Concat([]string{filepath.Dir(python.Executable)}, python.Roots, cfg.PythonPath) {
		if confine.Within(filepath.Clean(dir), "/tmp") || confine.Within(filepath.Clean(dir), "/var/tmp") {
			return dir
		}
	}
	return ""
}

// closedTo returns the first directory on the way to path that others may not enter, or "".
func closedTo(path string) string {
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if info, err := os.Stat(path[:i]); err == nil && info.Mode().Perm()&0o001 == 0 {
			return path[:i]
		}
	}
	return ""
}

func hasCapability(number int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[number/32].Effective&(1<<(number%32)) != 0
}
