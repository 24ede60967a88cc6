package pool

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed python/*.py
var pythonSources embed.FS

// templateModules are sent to each template, in the order of their imports.
var templateModules = []string{"wire", "confine", "worker", "lane", "template"}

// templateEnv names the variables of Caddy's own environment that templates, and so user code, may see.
var templateEnv = []string{"TZ", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}

const (
	// templateStartTimeout bounds the imports of preload.
	templateStartTimeout = 60 * time.Second
	// templateStopGrace is how long a template has to end by itself before it is killed.
	templateStopGrace = 2 * time.Second
)

// template is a running fork server. Its goroutines (receive, wait) end when its process does; stop ends that.
type template struct {
	cmd     *exec.Cmd
	control *control
	stderr  *tail
	exited  chan struct{} // closed once the process is reaped

	mu    sync.Mutex
	lanes map[int]chan<- laneStart // requests that the template has not answered yet
}

// laneNumbers counts the lanes of this process. The number picks a lane's id, so that no two pools' lanes share one.
var laneNumbers atomic.Int64

type laneStart struct {
	pidfd *os.File
	err   error
}

// stepError is a step of the confinement plan, or of the template's start, that failed.
type stepError struct{ step, reason string }

func (e *stepError) Error() string { return e.step + ": " + e.reason }

// startTemplate starts a template and returns once it is ready to fork.
func startTemplate(ctx context.Context, python Interpreter, p plan) (*template, error) {
	ctx, cancel := context.WithTimeout(ctx, templateStartTimeout)
	defer cancel()
	conn, theirs, err := newControl()
	if err != nil {
		return nil, err
	}
	t := &template{control: conn, stderr: &tail{}, exited: make(chan struct{}), lanes: map[int]chan<- laneStart{}}
	err = t.spawn(python, p, theirs)
	_ = theirs.Close()
	if err != nil {
		conn.close()
		return nil, err
	}
	// Reads below end when the template does, and that is when ctx says so at the latest.
	stopWatch := context.AfterFunc(ctx, func() { _ = t.cmd.Process.Kill() })
	defer stopWatch()
	if err := t.handshake(p); err != nil {
		_ = t.cmd.Process.Kill()
		<-t.exited
		conn.close()
		var step *stepError
		switch {
		case errors.As(err, &step):
			return nil, err
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the template was not ready within %s; is a module of preload that slow?", templateStartTimeout)
		}
		if status, ok := t.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return nil, fmt.Errorf("%w: it was killed while it started (%s)", errTemplateGone, status.Signal())
		}
		return nil, fmt.Errorf("%s ended before it was ready (%s%s)", python.Executable, t.cmd.ProcessState, lastLine(t.stderr.String()))
	}
	go t.receive()
	return t, nil
}

// spawn starts the process and the goroutine that reaps it.
func (t *template) spawn(python Interpreter, p plan, theirs *os.File) error {
	bootstrap, err := pythonSources.ReadFile("python/bootstrap.py")
	if err != nil {
		return err
	}
	// User code sees these flags, and its children inherit most, so they are few. What -I would keep out is kept out by the
	// environment, by -s (no packages from a home, which user code may write to) and by the bootstrap (sys.path).
	cmd := exec.Command(python.Executable, "-s", "-u", "-X", "utf8", "-c", string(bootstrap))
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Dir = "/"
	cmd.Env = environment(os.LookupEnv)
	// A session of its own: a terminal's ^C is for Caddy, which then ends the template in good order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.World == worldNamespaces {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
		if p.Order == orderUser {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
	}
	// Pipes, not /dev/null: Python's standard streams remember whether their descriptor can seek, and in the workers
	// these same objects stand on pipes.
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	_ = out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, t.stderr, t.stderr
	cmd.WaitDelay = time.Second // lanes share its standard error
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		if p.World == worldNamespaces {
			return &stepError{"creating namespaces", err.Error()}
		}
		return fmt.Errorf("starting %s: %w", python.Executable, err)
	}
	t.cmd = cmd
	go func() {
		_ = cmd.Wait()
		close(t.exited)
	}()
	return nil
}

func environment(lookup func(string) (string, bool)) []string {
	env := []string{
		// Symbols are resolved before the forks, not in each of them. The template removes it from what user code sees.
		"LD_BIND_NOW=1",
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "USER=sandbox", "LOGNAME=sandbox",
		// A fork server has one thread; numerical libraries start theirs on import unless told otherwise.
		"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
	}
	for _, name := range templateEnv {
		if value, ok := lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// handshake sends the sources and the plan, and answers until the template is ready.
func (t *template) handshake(p plan) error {
	var sources [][2]string
	modules := templateModules
	if p.Semaphores {
		modules = append([]string{"semaphores"}, modules...)
	}
	for _, name := range modules {
		source, err := pythonSources.ReadFile("python/" + name + ".py")
		if err != nil {
			return err
		}
		sources = append(sources, [2]string{"_sandbox_" + name, string(source)})
	}
	boot, err := json.Marshal(map[string]any{"sources": sources, "plan": p})
	if err != nil {
		return err
	}
	if err := t.control.write(boot); err != nil {
		return err
	}
	for {
		word, err := t.control.word()
		if err != nil {
			return err
		}
		switch string(word) {
		case "ready":
			return nil
		case "map":
			if err := t.writeIDMaps(); err != nil {
				return &stepError{"mapping ids", err.Error()}
			}
			if err := t.control.write([]byte("mapped")); err != nil {
				return err
			}
		default:
			return parseFailure(word)
		}
	}
}

func (t *template) writeIDMaps() error {
	line := fmt.Sprintf("0 %d %d", hostIDBase, hostIDs)
	for _, write := range [][2]string{{"setgroups", "deny"}, {"uid_map", line}, {"gid_map", line}} {
		if err := os.WriteFile("/proc/"+strconv.Itoa(t.cmd.Process.Pid)+"/"+write[0], []byte(write[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// receive serves the control socket until the template is gone.
func (t *template) receive() {
	defer t.control.close()
	for {
		word, fd, err := t.control.read()
		if err != nil {
			break
		}
		number, isLane := strings.CutPrefix(string(word), "lane ")
		id, err := strconv.Atoi(number)
		if !isLane || err != nil || fd < 0 {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
			break
		}
		handle := os.NewFile(uintptr(fd), "pidfd")
		t.mu.Lock()
		answer := t.lanes[id]
		delete(t.lanes, id)
		t.mu.Unlock()
		if answer == nil {
			_ = handle.Close()
			continue
		}
		answer <- laneStart{pidfd: handle}
	}
	_ = t.cmd.Process.Kill() // a broken control socket is a broken template
	<-t.exited
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, answer := range t.lanes {
		delete(t.lanes, id)
		answer <- laneStart{err: errTemplateGone}
	}
	t.lanes = nil
}

var errTemplateGone = errors.New("the template is gone")

// forkLane asks for a lane. It returns Go's end of the lane's control socket and a handle on its process.
func (t *template) forkLane() (*control, *os.File, error) {
	conn, theirs, err := newControl()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	answer := make(chan laneStart, 1)
	t.mu.Lock()
	if t.lanes == nil {
		t.mu.Unlock()
		conn.close()
		return nil, nil, errTemplateGone
	}
	id := int(laneNumbers.Add(1))
	t.lanes[id] = answer
	t.mu.Unlock()
	if err := t.control.write([]byte("lane "+strconv.Itoa(id)), int(theirs.Fd())); err != nil {
		conn.close()
		return nil, nil, fmt.Errorf("asking for a lane: %w", err)
	}
	started := <-answer // receive answers every request, with the template's end at the latest
	if started.err != nil {
		conn.close()
		return nil, nil, started.err
	}
	return conn, started.pidfd, nil
}

// endsSoon says whether the template is ending, for which it waits a moment: what hangs from it sees that first.
func (t *template) endsSoon() bool {
	select {
	case <-t.exited:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// stop ends the template and everything below it, and waits for that: end of file, grace, SIGKILL.
func (t *template) stop() {
	_ = t.control.conn.CloseWrite()
	select {
	case <-t.exited:
	case <-time.After(templateStopGrace):
		_ = t.cmd.Process.Kill()
		<-t.exited
	}
}

// tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.text), "?")
}
