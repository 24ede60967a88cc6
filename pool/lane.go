package pool

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// laneStartTimeout bounds the fork and set-up of a lane.
	laneStartTimeout = 15 * time.Second
	// killGrace is how long a lane has to end its worker before it is killed itself.
	killGrace = 2 * time.Second
)

// lane is the first process of a pid namespace, which forks workers one after the other. The pool's mutex guards
// current; receive, the only goroutine of a lane, ends with its process, which retire or its template's end causes.
type lane struct {
	template *template
	control  *control
	pidfd    *os.File
	pid      int // as Caddy sees it
	current  *worker
	number   int // of the last worker
}

// exit is what a lane's wait4 says of a worker.
type exit struct {
	lost        bool // the lane died with it
	status      unix.WaitStatus
	cpu         time.Duration
	maxRSSBytes int64
}

// startLane forks a lane and waits until it is ready.
func startLane(t *template) (*lane, error) {
	conn, pidfd, err := t.forkLane()
	if err != nil {
		return nil, err
	}
	l := &lane{template: t, control: conn, pidfd: pidfd}
	if l.pid, err = pidOf(pidfd); err == nil {
		_ = conn.conn.SetReadDeadline(time.Now().Add(laneStartTimeout))
		var m message
		if m, _, err = conn.receive(); err == nil && m.Event != "ready" {
			err = &stepError{m.Step, m.Error}
		}
	}
	if err != nil {
		l.kill()
		l.close()
		return nil, fmt.Errorf("starting a lane: %w", err)
	}
	_ = conn.conn.SetReadDeadline(time.Time{})
	return l, nil
}

// pidOf returns the pid of a handle as this process sees it (pidfd_open(2): the Pid field of its fdinfo).
func pidOf(pidfd *os.File) (int, error) {
	f, err := os.Open("/proc/self/fdinfo/" + strconv.Itoa(int(pidfd.Fd())))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(text))
			if err == nil && pid <= 0 {
				err = errTemplateGone
			}
			return pid, err
		}
	}
	return 0, fmt.Errorf("no pid in the handle's fdinfo")
}

// receive reports each worker's exit to onExit until the lane is gone, then calls onGone.
func (l *lane) receive(onExit func(number int, e exit), onGone func()) {
	for {
		m, fd, err := l.control.receive()
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		if err != nil || m.Event != "exit" {
			break
		}
		onExit(m.Worker, exit{status: unix.WaitStatus(m.Status), cpu: time.Duration(m.CPUSeconds * float64(time.Second)), maxRSSBytes: m.MaxRSSBytes})
	}
	l.kill()
	l.wait()
	onGone()
	l.close()
}

// wait returns when the process has ended: its handle becomes readable then (pidfd_open(2)). It has been killed, so
// that is soon.
func (l *lane) wait() {
	raw, err := l.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(killGrace.Milliseconds()))
			if err != unix.EINTR { //nolint:errorlint // a bare errno
				return
			}
		}
	})
}

// endWorker asks the lane to kill its worker's whole tree; a lane that does not is killed with it.
func (l *lane) endWorker(w *worker) {
	if err := l.control.say("kill", w.number); err != nil {
		l.kill()
		return
	}
	go func() {
		select {
		case <-w.dead:
		case <-time.After(killGrace):
			l.kill()
		}
	}()
}

// retire asks the lane to end, with what it holds.
func (l *lane) retire() { _ = l.control.conn.CloseWrite() }

// kill ends the lane, and in a pid namespace everything in it. The handle makes sure that no other process is hit.
func (l *lane) kill() {
	if raw, err := l.pidfd.SyscallConn(); err == nil { // refused once the handle is closed
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

func (l *lane) close() {
	l.control.close()
	_ = l.pidfd.Close()
}
