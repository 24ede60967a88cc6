// Package process starts the sandbox's own Python processes (templates and installers) in their confinement, and talks to them over a
// control socket.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/python"
)

// templateEnv names the variables of Caddy's own environment that templates, and so user code, may see.
var templateEnv = []string{"TZ", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}

const (
	// processStartTimeout bounds a start, the imports of preload included.
	processStartTimeout = 60 * time.Second
	// processStopGrace is how long a process has to end by itself before it is killed.
	processStopGrace = 2 * time.Second
)

// Process is a template or an installer that runs in its confinement. The goroutine that reaps it ends when the process does, by itself, by
// Stop, or because the caller kills Cmd.
type Process struct {
	Cmd     *exec.Cmd
	Control *Control
	Stderr  *Tail
	Exited  chan struct{} // closed once it is reaped
}

// StepError is a step of the confinement plan, or of the template's start, that failed.
type StepError struct{ Step, Reason string }

func (e *StepError) Error() string { return e.Step + ": " + e.Reason }

// Start starts a process that runs the named modules of package python, the last of which is the main one, and returns once the process is
// ready. whole is what the process gets as its plan: p, or a struct that embeds it. A nil stdout sends standard output to Stderr.
// given, if not nil, is called with each descriptor that the process sends before it is ready, and must close it. ctx bounds the start
// only.
func Start(ctx context.Context, interpreter Interpreter, p confine.Plan, whole any, modules []string, stdout io.Writer, given func(word string, fd *os.File)) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, processStartTimeout)
	defer cancel()
	conn, theirs, err := NewControl()
	if err != nil {
		return nil, err
	}
	x := &Process{Control: conn, Stderr: &Tail{}, Exited: make(chan struct{})}
	err = x.spawn(interpreter, p, stdout, theirs)
	_ = theirs.Close()
	if err != nil {
		conn.Close()
		return nil, err
	}
	// When ctx ends, the process is killed, which ends the reads below.
	stopWatch := context.AfterFunc(ctx, func() { _ = x.Cmd.Process.Kill() })
	defer stopWatch()
	if err := x.handshake(p, modules, whole, given); err != nil {
		_ = x.Cmd.Process.Kill()
		<-x.Exited
		conn.Close()
		var step *StepError
		switch {
		case errors.As(err, &step):
			return nil, err
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the %s was not ready within %s; is a module of preload that slow, or the system that busy?", modules[len(modules)-1], processStartTimeout)
		}
		if status, ok := x.Cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return nil, fmt.Errorf("the %s was killed while it started (%s): %w", modules[len(modules)-1], status.Signal(), ErrGone)
		}
		return nil, fmt.Errorf("%s ended before it was ready (%s%s)", interpreter.Executable, x.Cmd.ProcessState, LastLine(x.Stderr.String()))
	}
	return x, nil
}

// spawn starts the process and the goroutine that reaps it.
func (x *Process) spawn(interpreter Interpreter, p confine.Plan, stdout io.Writer, theirs *os.File) error {
	bootstrap, err := python.Sources.ReadFile("bootstrap.py")
	if err != nil {
		return err
	}
	// User code sees these flags, and Pythons that it starts inherit most of them, so there are few. Instead of -I, the environment is made
	// anew, -s leaves out the packages of the home directory, which user code may write to, and the bootstrap sets sys.path.
	cmd := exec.Command(interpreter.Executable, "-s", "-u", "-X", "utf8", "-c", string(bootstrap)) //nolint:noctx // it lives until Stop; only its start is bounded

	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Dir = "/"
	cmd.Env = environment(p.Path, os.LookupEnv)
	// In a session of its own the process gets no signal from ^C in Caddy's terminal: Caddy gets it, and stops the process in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.World == confine.WorldNamespaces {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
		if p.Order == confine.OrderUser {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
	}
	// Pipes, not /dev/null: Python's standard streams remember whether their descriptor can seek, and forked workers use the same stream
	// objects on pipes.
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	_ = out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, x.Stderr, x.Stderr
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.WaitDelay = time.Second // forked processes may keep its standard error open
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		if p.World == confine.WorldNamespaces {
			return &StepError{"creating namespaces", err.Error()}
		}
		return fmt.Errorf("starting %s: %w", interpreter.Executable, err)
	}
	x.Cmd = cmd
	go func() {
		_ = cmd.Wait()
		close(x.Exited)
	}()
	return nil
}

// environment returns the environment of a process. lookup is os.LookupEnv, except in tests.
func environment(path string, lookup func(string) (string, bool)) []string {
	env := []string{
		// The dynamic linker resolves symbols before the forks, not again in each fork. The template hides the variable from user code.
		"LD_BIND_NOW=1",
		"PATH=" + path, "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "USER=sandbox", "LOGNAME=sandbox",
		// A template must have one thread only. Without these variables numerical libraries start threads when they are imported.
		"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
	}
	for _, name := range templateEnv {
		if value, ok := lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// handshake sends the sources and the plan, and answers the process's messages until it is ready. given is that of Start.
func (x *Process) handshake(p confine.Plan, modules []string, extra any, given func(word string, fd *os.File)) error {
	var sources [][2]string
	if p.Semaphores {
		modules = append([]string{"semaphores"}, modules...)
	}
	for _, name := range modules {
		source, err := python.Sources.ReadFile(name + ".py")
		if err != nil {
			return err
		}
		sources = append(sources, [2]string{"_sandbox_" + name, string(source)})
	}
	boot, err := json.Marshal(map[string]any{"sources": sources, "main": modules[len(modules)-1], "plan": extra})
	if err != nil {
		return fmt.Errorf("encoding the plan: %w", err)
	}
	if err := x.Control.Write(boot); err != nil {
		return err
	}
	for {
		word, fd, err := x.Control.Read()
		if err != nil {
			return err
		}
		if fd >= 0 {
			file := os.NewFile(uintptr(fd), string(word))
			if given == nil {
				_ = file.Close()
				return ErrProtocol
			}
			given(string(word), file)
			continue
		}
		switch string(word) {
		case "ready":
			return nil
		case "map":
			if err := x.writeIDMaps(); err != nil {
				return &StepError{"mapping ids", err.Error()}
			}
			if err := x.Control.Write([]byte("mapped")); err != nil {
				return err
			}
		default:
			return ParseFailure(word)
		}
	}
}

// writeIDMaps maps the ids of the process's new user namespace, for OrderRoot.
func (x *Process) writeIDMaps() error {
	line := fmt.Sprintf("0 %d %d", confine.HostIDBase, confine.HostIDs)
	for _, write := range [][2]string{{"setgroups", "deny"}, {"uid_map", line}, {"gid_map", line}} {
		if err := os.WriteFile("/proc/"+strconv.Itoa(x.Cmd.Process.Pid)+"/"+write[0], []byte(write[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// Stop gives the process end of file, and kills it if it has not ended within processStopGrace. It returns when the process is reaped.
func (x *Process) Stop() {
	_ = x.Control.Conn.CloseWrite()
	select {
	case <-x.Exited:
	case <-time.After(processStopGrace):
		_ = x.Cmd.Process.Kill()
		<-x.Exited
	}
}

// Tail keeps the last 4096 bytes written to it. The zero value is ready to use. Safe for concurrent use.
type Tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String returns the last bytes, at most 4096, as valid UTF-8.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.text), "?")
}

// ErrGone means that a template or an installer has ended, or that a lane has.
var ErrGone = errors.New("the process is gone")

// Numbers counts the lanes and installers of this Caddy. The uid of each is derived from its number, so that those alive at the same time
// have different ones.
var Numbers = startAnywhere()

// startAnywhere returns a counter with a random start: the kernel counts processes and more by uid, and another Caddy on this host has the
// same range.
func startAnywhere() *atomic.Int64 {
	var n atomic.Int64
	n.Store(rand.Int64N(1 << 20)) //nolint:gosec // it guards nothing
	return &n
}
