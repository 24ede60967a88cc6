package install

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

// installerModules are sent to each installer, in the order of their imports.
var installerModules = []string{"wire", "system", "root", "confine", "processes", "deadends", "installer"}

const (
	// workTarget is the path of an installer's own directory in its root, when it has one (with namespaces).
	workTarget = "/sandbox/work"
	// installerMemory bounds the data of each process of an installer, in bytes.
	installerMemory = 2 << 30
	// installerProcesses bounds an installer's processes and threads; a build may run a compiler.
	installerProcesses = 128
	// installerAnswer bounds an installer's answer, in bytes.
	installerAnswer = 32 << 20
	// diskInterval is how often an installer's files are counted.
	diskInterval = 200 * time.Millisecond
)

// installerTask tells an installer what to do. python/installer.py reads it as JSON.
type installerTask struct {
	Kind      string   `json:"kind"` // resolve, build or compile
	Network   bool     `json:"network"`
	Port      int      `json:"port"` // of Caddy's proxy on loopback; 0 with namespaces, where the installer itself listens for Caddy
	Work      string   `json:"work"`
	Packages  string   `json:"packages"`
	PipWheel  string   `json:"pip_wheel"` // see pipFacts
	Arguments []string `json:"arguments"`
	// SearchSeconds and SearchBytes bound pip's search after its first dead end: the time, and the bytes of the installer's files.
	SearchSeconds float64           `json:"search_seconds"`
	SearchBytes   int64             `json:"search_bytes"`
	Trees         [][2]string       `json:"trees"`
	Env           map[string]string `json:"env"`
}

// installerPlan is what an installer gets: its confinement and its task.
type installerPlan struct {
	confine.Plan
	Number int           `json:"number"` // picks its uid, as a lane's number does
	Task   installerTask `json:"task"`
}

// installerAnswers is an installer's report about its task. It is not trusted: Caddy checks the files and versions itself.
type installerAnswers struct {
	Failed string   `json:"failed"` // the exception in python/installer.py; "" for none
	Status int      `json:"status"` // pip's exit status
	Chosen []chosen `json:"chosen"`
	Broken []string `json:"broken"`
	Files  int      `json:"files"`
	Log    string   `json:"log"`
	search
}

// chosen is a distribution that pip would install.
type chosen struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	URL       string `json:"url"`
	SHA256    string `json:"sha256"`
	Direct    bool   `json:"direct"`
	Yanked    bool   `json:"yanked"`
	Requested bool   `json:"requested"`
	// Extras are the extras that this version has; the names may not be canonical.
	Extras []string `json:"extras"`
}

// installerRun is one task with the files and hosts that it may reach.
type installerRun struct {
	task     installerTask
	dir      string // the installer's own directory on the host, which runInstaller makes
	readable []readable
	hosts    []string // the hosts that it may reach
	upstream string   // the operator's proxy; "" for that of Caddy's environment
	maxBytes int64    // bounds the bytes from the network and, separately, those of its files
	// received, if not nil, is called from time to time with the bytes from the network so far.
	received func(bytes int64)
}

// readable is a file or directory of the host that an installer may read. An installer with a root of its own finds it at target; ""
// means at the same path.
type readable struct{ path, target string }

var (
	errDiskFull    = errors.New("the installer wrote more than it may")
	errNetworkFull = errors.New("the installer received more than it may")
)

// hostsRefusedError is the error of a task that has failed after the proxy refused it these hosts.
type hostsRefusedError struct{ hosts []string }

func (e *hostsRefusedError) Error() string {
	return "not allowed to reach " + strings.Join(e.hosts, ", ")
}

// runInstaller runs a task in a new installer, and returns when this process and all that it started have ended.
func (s *Installs) runInstaller(ctx context.Context, run installerRun) (answers installerAnswers, err error) {
	number := int(process.Numbers.Add(1))
	if err := os.Mkdir(run.dir, 0o700); err != nil {
		return answers, err
	}
	if s.host.Plan.Order == confine.OrderRoot {
		id := confine.HostIDBase + confine.SandboxUID + number%s.host.Plan.UIDs
		if err := os.Chown(run.dir, id, id); err != nil {
			return answers, err
		}
	}
	var proxy *packages.Proxy
	serve := func(l net.Listener) {
		proxy = packages.NewProxy(l, packages.ProxyOptions{Hosts: run.hosts, Upstream: run.upstream, MaxBytes: run.maxBytes, Logger: s.host.Logger})
	}
	defer func() {
		if proxy != nil {
			err = networkFailure(proxy, answers, errors.Join(err, proxy.Close()))
		}
	}()
	if run.task.Network && s.host.Plan.World == confine.WorldProcess {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return answers, err
		}
		run.task.Port = l.Addr().(*net.TCPAddr).Port
		serve(l)
	}
	whole, err := s.planInstaller(run, number)
	if err != nil {
		return answers, err
	}
	out := &limitedBuffer{limit: installerAnswer}
	running, err := process.Start(ctx, s.host.Python, whole.Plan, whole, installerModules, out, func(_ string, socket *os.File) {
		l, listenErr := net.FileListener(socket)
		_ = socket.Close() // FileListener has a duplicate
		if listenErr == nil {
			serve(l)
		}
	})
	if err != nil {
		return answers, err
	}
	defer running.Control.Close()
	if err := waitInstaller(ctx, running, run, proxy); err != nil {
		return answers, err
	}
	if err := json.Unmarshal(out.Bytes(), &answers); err != nil {
		return answers, fmt.Errorf("the installer ended without an answer (%s%s)", running.Cmd.ProcessState, process.LastLine(running.Stderr.String()))
	}
	if answers.Failed != "" {
		return answers, fmt.Errorf("the installer failed: %s", answers.Failed)
	}
	return answers, nil
}

// networkFailure replaces the error of a task that failed because of the proxy by one that says so. Otherwise it returns err.
func networkFailure(proxy *packages.Proxy, answers installerAnswers, err error) error {
	if err == nil && answers.Status == 0 {
		return nil
	}
	if proxy.Exceeded() {
		return errNetworkFull
	}
	if refused := proxy.Refused(); len(refused) > 0 {
		return &hostsRefusedError{refused}
	}
	return err
}

// waitInstaller waits until the process has ended. It kills the process when ctx ends, and when its files hold too much.
func waitInstaller(ctx context.Context, process *process.Process, run installerRun, proxy *packages.Proxy) (err error) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		select {
		case <-process.Exited:
			return err
		case <-ctx.Done():
			err = context.Cause(ctx)
			killGroup(process)
			<-process.Exited
		case <-ticker.C:
			if proxy != nil && run.received != nil {
				run.received(proxy.Bytes())
			}
			if scratch.Exceeds([]string{run.dir}, run.maxBytes, math.MaxInt64) {
				err = errDiskFull
				killGroup(process)
				<-process.Exited
			}
		}
	}
}

// killGroup kills an installer and the processes that it has started. With namespaces these die with the first process of their pid
// namespace. Without, they are in its process group: only our own code and pip run there, and neither leaves the group.
func killGroup(process *process.Process) {
	_ = syscall.Kill(-process.Cmd.Process.Pid, syscall.SIGKILL)
	_ = process.Cmd.Process.Kill()
}

// planInstaller decides the confinement of an installer. It is that of a worker, but the installer may also write to run.dir, read
// run.readable, and reach Caddy's proxy if the task needs the network.
func (s *Installs) planInstaller(run installerRun, number int) (installerPlan, error) {
	whole := installerPlan{Plan: s.host.Plan, Number: number, Task: run.task}
	base, task := &whole.Plan, &whole.Task
	base.Preload, base.PythonPath = []string{}, []string{}
	base.Leftovers = []string{}
	base.Semaphores = false
	if base.Asking != "" { // an installer gets no memfds, since Caddy answers lanes only
		program, err := confine.SeccompProgram(runtime.GOARCH, confine.SeccompPolicy{World: base.World})
		if err != nil {
			return whole, err
		}
		base.Asking, base.Seccomp = "", hex.EncodeToString(program)
	}
	base.Rlimits = []confine.Rlimit{
		{Name: "RLIMIT_CORE", Value: 1}, {Name: "RLIMIT_FSIZE", Value: run.maxBytes}, {Name: "RLIMIT_NOFILE", Value: 1024},
		{Name: "RLIMIT_DATA", Value: installerMemory}, {Name: "RLIMIT_MSGQUEUE", Value: 0},
	}
	if base.World == confine.WorldNamespaces || base.Order == confine.OrderRoot {
		base.Rlimits = append(base.Rlimits, confine.Rlimit{Name: "RLIMIT_NPROC", Value: installerProcesses})
	}
	base.Landlock.Rules = slices.Clone(base.Landlock.Rules)
	if base.World == confine.WorldNamespaces {
		base.Scratch.Options = "size=64m,nr_inodes=4096,mode=1777"
		base.Root.Binds = slices.Clone(base.Root.Binds)
		task.Work = workTarget
		base.Root.Binds = append(base.Root.Binds, confine.Bind{Source: run.dir, Target: workTarget, Dir: true, Writable: true})
		for _, r := range run.readable {
			info, err := os.Stat(r.path)
			if err != nil {
				return whole, err
			}
			target := cmp.Or(r.target, r.path)
			if confine.Within(target, "/tmp") || confine.Within(target, "/var/tmp") {
				return whole, fmt.Errorf("%s, which pip is configured to use, lies in a directory that an installer does not share: move it out of /tmp", r.path)
			}
			if !slices.ContainsFunc(base.Root.Binds, func(b confine.Bind) bool { return b.Dir && confine.Within(target, b.Target) && b.Source == b.Target }) {
				base.Root.Binds = append(base.Root.Binds, confine.Bind{Source: r.path, Target: target, Dir: info.IsDir()})
			}
		}
		if base.Landlock.ABI > 0 {
			base.Landlock.Rules = append(base.Landlock.Rules, confine.LandlockRule{Path: workTarget, Access: base.Landlock.Scratch, Kind: confine.LandlockDir})
		}
		return whole, nil
	}
	task.Work = run.dir // instead of a worker's scratch directory
	for _, r := range run.readable {
		kind, access := confine.LandlockDir, uint64(confine.LandlockRead)
		if info, err := os.Stat(r.path); err != nil {
			return whole, err
		} else if !info.IsDir() {
			kind, access = confine.LandlockFile, confine.LandlockReadFile
		}
		if base.Landlock.ABI > 0 {
			base.Landlock.Rules = append(base.Landlock.Rules, confine.LandlockRule{Path: r.path, Access: access & base.Landlock.HandledFS, Kind: kind})
		}
	}
	if task.Network {
		if base.Landlock.ABI > 0 {
			// pip names the system in its User-Agent, and fails if this file exists and cannot be read.
			base.Landlock.Rules = append(base.Landlock.Rules, confine.LandlockRule{Path: "/etc/debian_version", Access: confine.LandlockReadFile & base.Landlock.HandledFS, Kind: confine.LandlockFile})
		}
		if base.Landlock.HandledNet != 0 {
			base.Landlock.Connect = []int{task.Port}
		}
		if base.Seccomp != "" {
			program, err := confine.SeccompProgram(runtime.GOARCH, confine.SeccompPolicy{World: confine.WorldProcess, OwnsFiles: base.Order != confine.OrderRoot, Connects: true})
			if err != nil {
				return whole, err
			}
			base.Seccomp = hex.EncodeToString(program)
		}
	}
	return whole, nil
}

// limitedBuffer keeps what is written to it up to a limit, and refuses more.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(text []byte) (int, error) {
	if b.Len()+len(text) > b.limit {
		return 0, errors.New("too much output")
	}
	return b.Buffer.Write(text)
}

// inside returns the path at which an installer, whose own directory on the host is dir, finds a file of the host.
func (s *Installs) inside(dir, path string) string {
	if s.host.Plan.World != confine.WorldNamespaces {
		return path
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	return filepath.Join(workTarget, rel)
}
