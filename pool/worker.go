package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// bootTimeout bounds the fork, confinement and warming of a worker.
const bootTimeout = 15 * time.Second

// worker is one confined process. The pool's mutex guards state and reason; start is called once, by the request
// that leased it; dead is closed when it is reaped, after which exit is set.
type worker struct {
	lane   *lane
	pid    atomic.Int32 // as Caddy sees it; 0 until it is parked
	state  State
	reason Reason // why it is ending; the first one counts

	// Our ends of user code's descriptors. Bare, since an os.File would wake us for every write of a program that is over
	// in a millisecond. They belong to the request that leased the worker, or else to whoever takes its end.
	stdin, stdout, stderr int
	channel               channel
	dead                  chan struct{}
	exit                  exit
	// awaitReady is set of a worker that a request has before it is forked: it waits until the worker is ready, and says why it did
	// not get so. By then the worker may have run. A saturated pool makes a ninth more runs a second with such workers than when
	// it parks each worker first, and its p99 is half as long: parking costs two changes of who runs.
	awaitReady func() error

	// leavesHolder tells it to leave a memory holder behind when its program is over (python/memoryholder.py).
	leavesHolder bool
	leasedAt     time.Time    // guarded by the pool's mutex
	session      atomic.Bool  // it takes input for as long as it lives
	peak         atomic.Int64 // bytes, by the monitor
	crowd        atomic.Int64 // the most processes at once, likewise

	// The monitor's own: when it counts the files next, and which processes have a lower priority.
	scratchDue time.Time
	lowered    map[int]bool // made, once, under the pool's mutex
}

func (w *worker) set() *workerSet { return w.lane.set() }

// isDeprioritized says whether it runs with a lower priority than others, and its lane with it. Preconditions: the pool's mutex is
// held.
func (w *worker) isDeprioritized() bool { return w.lowered != nil }

func newWorker(l *lane, state State) *worker {
	return &worker{lane: l, state: state, dead: make(chan struct{}), stdin: -1, stdout: -1, stderr: -1, channel: closedChannel()}
}

// open makes the pipes, and returns the other ends in the order of the "boot" message.
func (w *worker) open() (theirs []int, err error) {
	defer func() {
		if err != nil {
			process.CloseAll(theirs)
			w.closePipes()
		}
	}()
	var p [3][2]int
	for i := range p {
		if err = unix.Pipe2(p[i][:], unix.O_CLOEXEC); err != nil {
			return nil, fmt.Errorf("making pipes: %w", err)
		}
		mine, other := p[i][0], p[i][1]
		if i == 0 {
			mine, other = other, mine
		}
		*[]*int{&w.stdin, &w.stdout, &w.stderr}[i] = mine
		theirs = append(theirs, other)
		// Only our end: user code expects blocking descriptors. No other flag is set.
		if _, err = unix.FcntlInt(uintptr(mine), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
			return nil, fmt.Errorf("making pipes: %w", err)
		}
		if w.lane.uid != 0 {
			// To open /dev/stdout is to open this pipe anew, which the kernel allows to its owner only. Where Caddy may
			// give nothing away, that stays refused.
			_ = unix.Fchown(other, w.lane.uid, w.lane.uid)
		}
	}
	var end int
	if w.channel, end, err = newChannel(); end >= 0 {
		theirs = append(theirs, end)
	}
	return theirs, err
}

func (w *worker) closePipes() {
	for _, fd := range []*int{&w.stdin, &w.stdout, &w.stderr} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	w.channel.close()
}

// take turns one of the bare descriptors into a file, which then owns it.
func take(fd *int) *os.File {
	f := os.NewFile(uintptr(*fd), "pipe")
	*fd = -1
	return f
}

// ask has the lane fork the worker: to be parked ("boot"), or for a request that is on its way ("work"). processes is a limit
// for this worker, 0 when the lane has one for all.
func (w *worker) ask(word string, theirs []int, processes int) error {
	if processes > 0 {
		word += " " + strconv.Itoa(processes)
	}
	err := w.lane.control.Write([]byte(word), theirs...)
	process.CloseAll(theirs)
	if err != nil {
		return fmt.Errorf("asking for a worker: %w", err)
	}
	return nil
}

// boot has the lane make the worker, and waits until it is parked.
func (w *worker) boot(theirs []int, processes int) error {
	if err := w.ask("boot", theirs, processes); err != nil {
		return err
	}
	return w.readReady()
}

// readReady waits until the worker is confined and ready for its request, or has read it already.
func (w *worker) readReady() error {
	deadline := time.Now().Add(bootTimeout)
	line := make([]byte, 16) // enough for "ready"
	for n := 0; ; {
		if n == len(line) {
			if n >= 4096 {
				return process.ErrProtocol
			}
			line = append(line, make([]byte, 4096-n)...)
		}
		read, pid, err := w.channel.read(line[n:], deadline)
		if pid > 0 {
			w.pid.Store(pid)
		}
		n += read
		if end := bytes.IndexByte(line[:n], '\n'); end >= 0 {
			if end != n-1 || w.pid.Load() <= 0 {
				return process.ErrProtocol
			}
			if string(line[:end]) == "ready" {
				return nil
			}
			return process.ParseFailure(line[:end])
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("the worker was not ready within %s", bootTimeout)
			}
			return fmt.Errorf("the worker ended before it was ready: %w", err)
		}
	}
}

// kill ends the worker's first process; false when that cannot be done safely.
func (w *worker) kill() bool { return w.signal(unix.SIGKILL, 0) }

// interrupt sends SIGINT to the worker's first process, and to those of its group, as a terminal would; false when that
// cannot be done safely.
func (w *worker) interrupt() bool {
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, which x/sys does not have yet
	return w.signal(unix.SIGINT, group) || w.signal(unix.SIGINT, 0)
}

// signal sends sig to the worker's first process, or does nothing when that has ended; false when that cannot be done
// safely. Its pid may have been given to another by now, so it is made sure that the handle is on a child of our lane.
func (w *worker) signal(sig unix.Signal, flags int) bool {
	pid := int(w.pid.Load())
	if pid <= 0 {
		return false
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH //nolint:errorlint // a bare errno; then it has ended, and its lane will say so
	}
	defer unix.Close(pidfd)
	fields, err := procfs.ReadStat(pid)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	if len(fields) < 2 || fields[1] != strconv.Itoa(w.lane.pid) { // the state and the parent come first
		return true
	}
	return unix.PidfdSendSignal(pidfd, sig, nil, flags) == nil
}

// start hands the request over; from its return on the worker has the code.
func (w *worker) start(req Request) error {
	word := "run\n"
	if w.leavesHolder {
		word = "run alone\n"
	}
	if err := w.channel.write(word + strings.TrimPrefix(req.Code, "\ufeff")); err != nil {
		return fmt.Errorf("sending the request: %w", err)
	}
	if w.awaitReady == nil {
		w.channel.close()
	} else if err := w.channel.closeWrite(); err != nil { // it has yet to say that it is ready
		return err
	}
	if req.Input != nil {
		return nil // run feeds it
	}
	if req.Stdin == "" {
		_ = unix.Close(w.stdin)
		w.stdin = -1
		return nil
	}
	stdin := take(&w.stdin)
	go func() { // ends when all is written, or when the last reader of the pipe does
		_, _ = io.WriteString(stdin, req.Stdin)
		_ = stdin.Close()
	}()
	return nil
}

// feed writes pieces to a worker's standard input as they come, until there are no more or the worker has ended. asked is
// called before each. What the worker does not take any more is dropped.
func feed(stdin *os.File, pieces <-chan []byte, dead <-chan struct{}, asked func()) {
	defer stdin.Close()
	for {
		select {
		case piece, more := <-pieces:
			if !more {
				return
			}
			asked()
			_, _ = stdin.Write(piece)
		case <-dead:
			return
		}
	}
}

// buffers are for collect: most programs write little, and are many.
var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// collect reads what lies in the pipe of a program that has ended, and no more than the pipe can hold: what it left running
// may still write.
func collect(fd int, into *capture) {
	pooled := buffers.Get().(*[4096]byte)
	defer buffers.Put(pooled)
	buffer := pooled[:]
	for total, most := 0, 1<<16; ; {
		n, err := unix.Read(fd, buffer)
		if n <= 0 {
			if err == unix.EINTR {
				continue
			}
			return // end of file, or nothing more now
		}
		into.write(buffer[:n])
		if total += n; total >= most {
			if most, err = unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err != nil || total >= most {
				return
			}
		}
	}
}

func collectFile(f *os.File, into *capture) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { collect(int(fd), into) })
	}
}

// drain reads one stream to its end. unasked counts the bytes of both streams, and over is called when it passes limit.
func drain(f *os.File, into *capture, unasked *atomic.Int64, limit int64, over func()) {
	buffer := make([]byte, 4096)
	for {
		n, err := f.Read(buffer)
		into.write(buffer[:n])
		if sum := unasked.Add(int64(n)); sum > limit && sum-int64(n) <= limit {
			over()
		}
		if err != nil {
			return // end of file, or the deadline that run sets
		}
		if n == len(buffer) && n < 1<<16 {
			buffer = make([]byte, 1<<16) // a stream this fast is worth larger reads
		}
	}
}
