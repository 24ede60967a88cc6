package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// templateModules are sent to each template, in the order of their imports.
var templateModules = []string{"wire", "system", "root", "confine", "processes", "frames", "pages", "memoryholder", "worker", "lane", "preload", "template"}

// viewModules are sent besides where lanes answer what paths mean. They need the first five of the others.
var viewModules = []string{"tracing", "sockets", "view", "listings", "pids", "attributes", "calls", "trial"}

// template is a running fork server. Its goroutine, receive, ends when the process does, for example by Stop.
type template struct {
	*process.Process
	set    *workerSet
	plan   confine.Plan
	growth backoff // after lanes that could not be started, or whose worker failed to boot; guarded by the pool's mutex

	mu    sync.Mutex
	lanes map[int]chan<- laneStart // requests that the template has not answered yet
}

type laneStart struct {
	pidfd *os.File
	err   error
}

// startTemplate starts a template and returns once it is ready to fork.
func startTemplate(ctx context.Context, python process.Interpreter, p confine.Plan) (*template, error) {
	modules := templateModules
	if p.View != nil {
		modules = slices.Insert(slices.Clone(modules), 5, viewModules...)
	}
	process, err := process.Start(ctx, python, p, p, modules, nil, nil)
	if err != nil {
		return nil, err
	}
	t := &template{Process: process, plan: p, lanes: map[int]chan<- laneStart{}, growth: backoff{first: 40 * time.Millisecond, longest: 5 * time.Second}}
	go t.receive()
	return t, nil
}

// receive serves the control socket until the template is gone.
func (t *template) receive() {
	defer t.Control.Close()
	for {
		word, fd, err := t.Control.Read()
		if err != nil {
			break
		}
		id, started, ok := parseLaneStart(string(word), fd)
		if !ok {
			break
		}
		t.mu.Lock()
		answer := t.lanes[id]
		delete(t.lanes, id)
		t.mu.Unlock()
		switch {
		case answer != nil:
			answer <- started
		case started.pidfd != nil:
			_ = started.pidfd.Close()
		}
	}
	_ = t.Cmd.Process.Kill() // a broken control socket is a broken template
	<-t.Exited
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, answer := range t.lanes {
		delete(t.lanes, id)
		answer <- laneStart{err: process.ErrGone}
	}
	t.lanes = nil
}

// parseLaneStart reads what the template says of a lane: "lane", its number, and a pidfd beside it; or "failed", the number and why there
// is none. ok is false for anything else, and fd is closed then.
func parseLaneStart(word string, fd int) (id int, started laneStart, ok bool) {
	if rest, failed := strings.CutPrefix(word, "failed "); failed && fd < 0 {
		number, why, _ := strings.Cut(rest, " ")
		id, err := strconv.Atoi(number)
		return id, laneStart{err: fmt.Errorf("the template could not fork it: %s", why)}, err == nil
	}
	number, isLane := strings.CutPrefix(word, "lane ")
	id, err := strconv.Atoi(number)
	if !isLane || err != nil || fd < 0 {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return 0, laneStart{}, false
	}
	return id, laneStart{pidfd: os.NewFile(uintptr(fd), "pidfd")}, true
}

// errLaneTimeout means that a template did not answer. Its process may be stopped, or hang in a system call.
var errLaneTimeout = errors.New("the template did not answer in time")

// forkLane asks for a lane until deadline. It returns Go's end of the lane's control socket, a handle on its process, and its
// number.
func (t *template) forkLane(deadline time.Time) (*process.Control, *os.File, int, error) {
	conn, theirs, err := process.NewControl()
	if err != nil {
		return nil, nil, 0, err
	}
	defer theirs.Close()
	answer := make(chan laneStart, 1)
	t.mu.Lock()
	if t.lanes == nil {
		t.mu.Unlock()
		conn.Close()
		return nil, nil, 0, process.ErrGone
	}
	id := int(process.Numbers.Add(1))
	t.lanes[id] = answer
	t.mu.Unlock()
	if err := t.tell("lane "+strconv.Itoa(id), deadline, int(theirs.Fd())); err != nil {
		t.forget(id)
		conn.Close()
		return nil, nil, 0, fmt.Errorf("asking for a lane: %w", err)
	}
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	var started laneStart
	select {
	case started = <-answer: // receive answers when the template ends, at the latest
	case <-late.C:
		// If the lane is forked after all, it finds its control socket closed, and ends.
		if t.forget(id) {
			started.err = errLaneTimeout
		} else {
			started = <-answer // receive has taken the request, and sends its answer now
		}
	}
	if started.err != nil {
		conn.Close()
		return nil, nil, 0, started.err
	}
	return conn, started.pidfd, id, nil
}

// tell writes a message to the control socket. While the template does not read and the buffer is full, it waits until deadline. The
// socket has one deadline, so concurrent calls all get that of the latest one.
func (t *template) tell(word string, deadline time.Time, fds ...int) error {
	_ = t.Control.Conn.SetWriteDeadline(deadline)
	return t.Control.Write([]byte(word), fds...)
}

// forget drops a request for a lane, and says whether it was still unanswered.
func (t *template) forget(id int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, waits := t.lanes[id]
	delete(t.lanes, id)
	return waits
}

// endsSoon says whether the template ends within 100 ms. When a template dies, its lanes fail first, a moment before its exit is seen.
func (t *template) endsSoon() bool {
	select {
	case <-t.Exited:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}
