package pool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bootTimeout bounds the fork, confinement and warming of a worker.
	bootTimeout = 15 * time.Second
	// drainGrace is how long output may still come after the worker's last process has ended. In a pid namespace all
	// writers are gone by then; without one a process that escaped may hold the pipe.
	drainGrace = 250 * time.Millisecond
)

// worker is one confined process. The pool's mutex guards state and reason; do is called once, by the request that
// leased it; dead is closed when it is reaped, after which exit is set.
type worker struct {
	lane   *lane
	number int // within the lane
	state  State
	reason Reason // why it is ending; the first one counts

	stdin, stdout, stderr *os.File
	channel               *os.File
	dead                  chan struct{}
	exit                  exit

	leasedAt time.Time    // guarded by the pool's mutex
	peak     atomic.Int64 // bytes, by the monitor
}

// newWorker makes the pipes of a worker and returns it with the other ends, in the order of the "boot" message.
func newWorker(l *lane) (w *worker, theirs []int, err error) {
	w = &worker{lane: l, state: StateBooting, dead: make(chan struct{})}
	defer func() {
		if err != nil {
			closeAll(theirs)
			w.closePipes()
		}
	}()
	pipe := func(ours **os.File, oursReads bool) {
		if err != nil {
			return
		}
		var p [2]int
		if err = unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return
		}
		mine, other := p[1], p[0]
		if oursReads {
			mine, other = p[0], p[1]
		}
		// Only our end: user code expects blocking descriptors.
		err = unix.SetNonblock(mine, true)
		*ours = os.NewFile(uintptr(mine), "pipe")
		theirs = append(theirs, other)
	}
	pipe(&w.stdin, false)
	pipe(&w.stdout, true)
	pipe(&w.stderr, true)
	if err != nil {
		return nil, nil, fmt.Errorf("making pipes: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a channel: %w", err)
	}
	theirs = append(theirs, pair[1])
	err = unix.SetNonblock(pair[0], true)
	w.channel = os.NewFile(uintptr(pair[0]), "channel")
	return w, theirs, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (w *worker) closePipes() {
	for _, f := range []*os.File{w.stdin, w.stdout, w.stderr, w.channel} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// boot sends the descriptors to the lane and waits until the worker is parked.
func (w *worker) boot(theirs []int) error {
	err := w.lane.control.say("boot", w.number, theirs...)
	closeAll(theirs)
	if err != nil {
		return fmt.Errorf("asking for a worker: %w", err)
	}
	_ = w.channel.SetReadDeadline(time.Now().Add(bootTimeout))
	line := make([]byte, 4096)
	for n := 0; ; {
		if n == len(line) {
			return errProtocol
		}
		read, err := w.channel.Read(line[n:])
		n += read
		if end := bytes.IndexByte(line[:n], '\n'); end >= 0 {
			var m message
			switch err := json.Unmarshal(line[:end], &m); {
			case err != nil || end != n-1:
				return errProtocol
			case m.Event == "failed":
				return &stepError{m.Step, m.Error}
			case m.Event != "ready":
				return errProtocol
			}
			_ = w.channel.SetReadDeadline(time.Time{})
			return nil
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("the worker was not ready within %s", bootTimeout)
			}
			return fmt.Errorf("the worker ended before it was ready: %w", err)
		}
	}
}

var errProtocol = errors.New("the worker broke the protocol")

// start hands the request over; from its return on the worker has the code.
func (w *worker) start(req Request) error {
	_ = w.channel.SetWriteDeadline(time.Now().Add(bootTimeout))
	if _, err := io.WriteString(w.channel, "run\n"+req.Code); err != nil {
		return fmt.Errorf("sending the request: %w", err)
	}
	_ = w.channel.Close()
	if req.Stdin == "" {
		_ = w.stdin.Close()
		return nil
	}
	go func() { // ends when all is written or when closePipes closes the pipe
		_, _ = io.WriteString(w.stdin, req.Stdin)
		_ = w.stdin.Close()
	}()
	return nil
}

// drain reads one stream to its end. total counts the bytes of both streams, and over is called once it passes limit.
func drain(f *os.File, into *capture, total *atomic.Int64, limit int64, over func()) {
	buffer := make([]byte, 4096)
	for {
		n, err := f.Read(buffer)
		into.write(buffer[:n])
		if sum := total.Add(int64(n)); sum > limit && sum-int64(n) <= limit {
			over()
		}
		if err != nil {
			return // end of file, or the deadline that finish sets
		}
		if n == len(buffer) && n < 1<<16 {
			buffer = make([]byte, 1<<16) // a stream this fast is worth larger reads
		}
	}
}
