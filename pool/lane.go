package pool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

const (
	// laneStartTimeout bounds the fork and set-up of a lane.
	laneStartTimeout = 15 * time.Second
	// killGrace is how long a lane has to end its worker before it is killed itself.
	killGrace = 2 * time.Second
)

// lane is the first process of a pid namespace, which forks workers one after the other. The pool's mutex guards made and current.
// A lane has one goroutine, receive, which ends with the lane's process: after retire, kill or the end of the template.
type lane struct {
	template *template
	control  *process.Control
	pidfd    *os.File
	pid      int       // as Caddy sees it
	uid      int       // of user code, as Caddy sees it; 0 when that is Caddy's own
	since    time.Time // when it was ready
	made     int       // how many workers it has started
	current  *worker
	asked    *asked // nil when its programs ask nothing
	group    cgroup.LaneGroup
	oomKills int64 // in the group, at the end of the last worker; used by receive only
}

func (l *lane) set() *workerSet { return l.template.set }

// exit is how a worker ended, as its lane's wait4 reports it.
type exit struct {
	lost        bool // the lane died too, or never forked the worker: the other fields are not known
	status      unix.WaitStatus
	cpu         time.Duration
	maxRSSBytes int64
	outOfMemory bool // the kernel has killed a process of its control group for want of memory
}

// startLane forks a lane and waits up to timeout until it is ready.
func startLane(t *template, timeout time.Duration) (*lane, error) {
	deadline := time.Now().Add(timeout)
	conn, pidfd, number, err := t.forkLane(deadline)
	if err != nil {
		return nil, err
	}
	l := &lane{template: t, control: conn, pidfd: pidfd, uid: hostID(t.plan, number)}
	if l.pid, err = pidOf(pidfd); err == nil {
		_ = conn.Conn.SetReadDeadline(deadline)
		var word []byte
		var listener int
		if word, listener, err = conn.Read(); err == nil && string(word) != "ready" {
			err = process.ParseFailure(word)
		}
		if listener >= 0 {
			l.asked = newAsked(listener, l.pid, l.uid)
		}
	}
	if err != nil {
		l.kill()
		l.close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("it was not ready within %s", timeout)
		}
		return nil, fmt.Errorf("starting a lane: %w", err)
	}
	_ = conn.Conn.SetReadDeadline(time.Time{})
	l.since = time.Now()
	return l, nil
}

// hostID is the uid and gid that user code of a lane has on the host, 0 when those are Caddy's own (enter_lane in confine.py).
func hostID(p confine.Plan, number int) int {
	switch {
	case p.Order != confine.OrderRoot:
		return 0
	case p.World == confine.WorldNamespaces:
		return confine.HostIDBase + p.UID + number%p.UIDs
	}
	return p.UID + number%p.UIDs
}

// pidOf returns the pid of a pidfd's process in Caddy's pid namespace (pidfd_open(2): the Pid field of its fdinfo).
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
				err = process.ErrGone
			}
			return pid, err
		}
	}
	return 0, fmt.Errorf("no pid in the handle's fdinfo")
}

// receive calls onExit for the end of each worker, and onGone when the lane's process has ended. A lane clears up after it has reported
// the end of a worker. When it cannot, it says "leave" and ends itself, and receive calls onLeave before onGone. last is the exit of the
// worker that the lane had, if any.
func (l *lane) receive(onExit func(e exit), onLeave func(), onGone func(last exit)) {
	for {
		line, err := l.control.Word()
		if err != nil {
			break
		}
		if string(line) == "leave" {
			onLeave()
			break
		}
		e, err := parseExit(line)
		if err != nil {
			break
		}
		if now := l.group.Killed(); now > l.oomKills {
			l.oomKills, e.outOfMemory = now, true
		}
		memfds := l.asked.endRun()
		onExit(e)
		process.CloseAll(memfds)
	}
	l.kill()
	l.wait()
	last := exit{lost: true}
	if l.group.Killed() > l.oomKills {
		last = exit{status: unix.WaitStatus(unix.SIGKILL), outOfMemory: true} // of the processes of a run that is over its limit, the lane's was chosen, too
	}
	onGone(last)
	l.group.Remove()
	l.close()
}

// parseExit reads a lane's packet about a worker that has ended: "exit", wait4(2)'s status as an int, and its struct rusage.
func parseExit(packet []byte) (e exit, err error) {
	const status, usage, end = 4, 4 + 4, 4 + 4 + 144
	if len(packet) != end || string(packet[:status]) != "exit" {
		return e, process.ErrProtocol
	}
	e.status = unix.WaitStatus(binary.NativeEndian.Uint32(packet[status:]))
	var number [5]int64 // user and system time, each in seconds and microseconds, and peak resident memory in KiB
	for i := range number {
		number[i] = int64(binary.NativeEndian.Uint64(packet[usage+8*i:]))
		if number[i] < 0 || number[i] > math.MaxUint32 {
			return e, process.ErrProtocol
		}
	}
	if e.status > math.MaxUint16 || !e.status.Exited() && !e.status.Signaled() && !e.status.Stopped() {
		return e, process.ErrProtocol
	}
	e.cpu = time.Duration(number[0]+number[2])*time.Second + time.Duration(number[1]+number[3])*time.Microsecond
	e.maxRSSBytes = number[4] << 10
	return e, nil
}

// wait returns when the lane's process, which was killed, has ended, or after killGrace. A pidfd is readable once its process has ended
// (pidfd_open(2)).
func (l *lane) wait() {
	raw, err := l.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(killGrace.Milliseconds()))
			if err != unix.EINTR {
				return
			}
		}
	})
}

// endWorker kills the worker's own process; the lane then kills the processes that the worker had started. If the lane does not report
// the end within killGrace, or the worker cannot be killed alone, endWorker kills the lane.
func (l *lane) endWorker(w *worker) {
	if !w.kill() {
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

// retire asks the lane to end as soon as it has no worker.
func (l *lane) retire() { _ = l.control.Conn.CloseWrite() }

// kill ends the lane, and with it everything in its pid namespace. It signals a pidfd, so it cannot hit another process that has got
// the lane's pid.
func (l *lane) kill() {
	l.group.Kill()
	if raw, err := l.pidfd.SyscallConn(); err == nil { // refused once the handle is closed
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

func (l *lane) close() {
	l.asked.close()
	l.control.Close()
	_ = l.pidfd.Close()
}
