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
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

// bootTimeout bounds the fork, confinement and warming of a worker.
const bootTimeout = 15 * time.Second

// worker is one confined process. The pool's mutex guards state and reason; start is called once, by the request
// that leased it; dead is closed when it is reaped, after which exit is set.
type worker struct {
	lane   *lane
	pid    atomic.Int32 // as Caddy sees it; 0 until it is parked
	state  State
	reason Reason // why it ends; set once, by endLocked

	// Caddy's ends of the standard streams of user code, -1 when closed. They are bare descriptors, since an os.File would be polled, and
	// each write of a program that ends within a millisecond would wake a thread. They belong to the request that leased the worker; those
	// of a worker that was never leased are closed by exitedLocked.
	stdin, stdout, stderr int
	channel               channel
	dead                  chan struct{}
	exit                  exit
	// awaitReady is not nil for a worker that is leased before it is forked. It waits until the worker is ready, and returns the error if
	// that fails. The worker may have run the code by then. Under saturation, such workers give a ninth more runs per second and half the
	// p99 of a pool that parks each worker first, since parking costs two context switches.
	awaitReady func() error

	// leavesHolder has the worker leave a process behind that holds its memory, so that it is freed after the answer
	// (python/memoryholder.py).
	leavesHolder bool
	leasedAt     time.Time    // guarded by the pool's mutex
	session      atomic.Bool  // its request has Input
	peak         atomic.Int64 // the most memory seen by the monitor, in bytes
	crowd        atomic.Int64 // the most processes at once seen by the monitor

	// Used by the monitor only: when it counts the files in scratch next; what descriptors stand for and what files without a name hold,
	// in bytes, and when it looks at them next; and which processes, and which of their sessions, have a lower priority by now.
	scratchDue        time.Time
	files             *scratch.Unlinked // nil until measure needs it
	handles, unlinked int64
	handlesDue        time.Time
	lowered           map[int]bool // nil until deprioritize, which sets it under the pool's mutex
	loweredSessions   map[int]bool
}

func (w *worker) set() *workerSet { return w.lane.set() }

// isDeprioritized says whether the worker and its lane run with a lowered priority. The caller holds the pool's mutex.
func (w *worker) isDeprioritized() bool { return w.lowered != nil }

func newWorker(l *lane, state State) *worker {
	return &worker{lane: l, state: state, dead: make(chan struct{}), stdin: -1, stdout: -1, stderr: -1, channel: closedChannel()}
}

// open makes the pipes and the channel, and returns the worker's ends in the order of the "boot" message. The caller closes those; ask
// does so.
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
		// Caddy's end only: user code expects blocking descriptors. A new pipe has no other flags to keep.
		if _, err = unix.FcntlInt(uintptr(mine), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
			return nil, fmt.Errorf("making pipes: %w", err)
		}
		if w.lane.uid != 0 {
			// A program that opens /dev/stdout opens this pipe anew, which the kernel allows only to the pipe's owner. When Caddy may
			// not change owners, the program's open fails.
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

// ask has the lane fork the worker: to be parked ("boot"), or for a request that has it already ("work"). processes is the worker's
// RLIMIT_NPROC, 0 to keep the lane's. It closes theirs.
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

// boot has the lane fork the worker, and waits until it is parked.
func (w *worker) boot(theirs []int, processes int) error {
	if err := w.ask("boot", theirs, processes); err != nil {
		return err
	}
	return w.readReady()
}

// readReady waits for the worker's "ready": it is confined. A worker that has its request already may have run it by then.
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
// safely. The pid may belong to another process by now, so signal checks that the pidfd's process is a child of the lane.
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
	} else if err := w.channel.closeWrite(); err != nil { // only for writing: the worker has not sent "ready" yet
		return err
	}
	if req.Input != nil {
		return nil // execution.feed writes to it
	}
	if req.Stdin == "" {
		_ = unix.Close(w.stdin)
		w.stdin = -1
		return nil
	}
	stdin := take(&w.stdin)
	go func() { // ends when all is written, or when no process has the read end open any more
		_, _ = io.WriteString(stdin, req.Stdin)
		_ = stdin.Close()
	}()
	return nil
}

// feed writes pieces to a worker's standard input as they come, until the channel is closed or the worker has ended. It calls asked before
// each piece. Bytes that the worker does not read are dropped.
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

// buffers are reused by collect: most programs write little, and there are many of them.
var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// collect reads what is in the pipe of a program that has ended, but no more than a pipe holds: processes that the program has left
// running may go on writing.
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

// drain reads one stream to its end. unasked counts the bytes of both streams; the call of drain that takes it above limit calls over.
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
