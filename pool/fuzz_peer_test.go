package pool

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// scriptedLane is a lane played by the test: it has the other end of the lane's control socket.
type scriptedLane struct {
	t       *testing.T
	control int
	held    []int // descriptors of the last booted worker: stdin, stdout, stderr, channel
}

// noParent is the pid of no process. A scripted lane has it, so that the pool does not take this process, whose pid its workers seem to
// have, for a child of that lane and kill it.
const noParent = math.MaxInt32

func newBarePool(t *testing.T) *Pool {
	cfg, err := Config{Idle: 2, Max: 2, AcquireTimeout: 5 * time.Second, ShutdownGrace: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, lanes: map[*lane]struct{}{}, leased: map[*worker]struct{}{}, busy: make(chan struct{}, 1), closing: make(chan struct{}), current: &workerSet{warm: make(chan error, 1), cancel: func() {}}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// newScriptedLane adds a lane to a pool, as grow does, and returns its other side.
func newScriptedLane(t *testing.T, p *Pool) *scriptedLane { return newScriptedLaneIn(t, p, "") }

// newScriptedLaneIn adds a lane that has a control group.
func newScriptedLaneIn(t *testing.T, p *Pool, group cgroup.LaneGroup) *scriptedLane {
	ours, theirs, err := process.NewControl()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	// A pipe instead of a pidfd: it is readable, like the pidfd of a process that has ended, and cannot be used to send signals.
	handle, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	gone := make(chan struct{})
	close(gone)
	l := &lane{template: &template{Process: &process.Process{Exited: gone}, set: p.current}, control: ours, pidfd: handle, pid: noParent, group: group}
	p.mu.Lock()
	p.lanes[l] = struct{}{}
	p.current.lanes++
	p.current.free = append(p.current.free, l)
	p.mu.Unlock()
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		p.receive(l)
	}()
	return &scriptedLane{t: t, control: fd}
}

// play acts as the bytes of the script say, and then closes all its descriptors.
func (l *scriptedLane) play(script []byte) {
	for tape := tape(script); len(tape) > 0; {
		switch tape.next() % 14 {
		case 0:
			l.drop()
			l.held = receiveBoot(l.control)
		case 1:
			l.channel("ready\n")
		case 2:
			l.work()
		case 3:
			l.say(exitWord(0, 1830, 13000))
		case 4:
			l.say(exitWord(0, 1830, 13000))
			l.say("leave")
		case 5:
			l.say(exitWord(256, 1, 1))
			l.say(exitWord(0, 1, 1))
		case 6:
			n := int(tape.next())
			n = min(n, len(tape))
			l.say(string(tape[:n]))
			tape = tape[n:]
		case 7:
			null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				l.t.Error(err)
				return
			}
			rights := slices.Repeat([]int{null}, int(tape.next()%4))
			_ = unix.Sendmsg(l.control, []byte(exitWord(0, 1, 1)), unix.UnixRights(rights...), nil, unix.MSG_NOSIGNAL)
			_ = unix.Close(null)
		case 8:
			l.drop()
		case 9:
			l.channel("ready\nexit 0 1 1\n")
		case 10:
			_ = unix.Shutdown(l.control, unix.SHUT_WR)
		case 11:
			l.say(exitWord(9, 1830, 13000))
		case 12:
			l.channel(`{"event":"failed","step":"confining","error":"no"}` + "\n")
		case 13:
			l.say(exitWord(0, math.MaxInt64, math.MaxInt64))
		}
	}
	l.drop()
	_ = unix.Close(l.control)
}

func (l *scriptedLane) say(packet string) {
	_ = unix.Sendmsg(l.control, []byte(packet), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

func (l *scriptedLane) channel(text string) {
	if len(l.held) == 4 {
		_ = unix.Sendmsg(l.held[3], []byte(text), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
}

// work plays a worker whose code prints itself: it writes the code of the request to standard output.
func (l *scriptedLane) work() {
	if len(l.held) != 4 {
		return
	}
	var request []byte
	for buffer := make([]byte, 4096); ; {
		n, _, err := receiveSoon(l.held[3], buffer, nil)
		if err != nil {
			return // no request came
		}
		if n == 0 {
			break
		}
		request = append(request, buffer[:n]...)
	}
	if _, code, ok := bytes.Cut(request, []byte("\n")); ok {
		_, _ = unix.Write(l.held[1], code)
	}
}

func (l *scriptedLane) drop() {
	process.CloseAll(l.held)
	l.held = nil
}

// receiveBoot returns the descriptors of a boot message, or nil when none comes within 20 ms.
func receiveBoot(control int) []int {
	oob := make([]byte, 64)
	_, oobn, err := receiveSoon(control, make([]byte, 64), oob)
	if err != nil {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil
	}
	return fds
}

// receiveSoon receives a packet, and waits at most 20 ms for it.
func receiveSoon(fd int, into, oob []byte) (n, oobn int, err error) {
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20)
		if err == unix.EINTR {
			continue
		}
		if ready <= 0 {
			return 0, 0, unix.ETIMEDOUT
		}
		n, oobn, _, _, err = unix.Recvmsg(fd, into, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return n, oobn, err
	}
}

// sendPacket sends a packet, which may be empty, with a control message. unix.Sendmsg sends a byte in place of an empty packet.
func sendPacket(fd int, packet, rights []byte) error {
	var message unix.Msghdr
	if len(rights) > 0 {
		message.Control = &rights[0]
		message.SetControllen(len(rights))
	}
	if len(packet) > 0 {
		part := unix.Iovec{Base: &packet[0]}
		part.SetLen(len(packet))
		message.Iov = &part
		message.SetIovlen(1)
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), unix.MSG_NOSIGNAL)
	if errno != 0 {
		return errno
	}
	return nil
}

// tape is a script that is read byte by byte; next returns 0 after its end.
type tape []byte

func (t *tape) next() byte {
	if len(*t) == 0 {
		return 0
	}
	b := (*t)[0]
	*t = (*t)[1:]
	return b
}

// mark is a file that nothing else has open, so that descriptors of it can be counted.
type mark struct {
	fd    int
	inode uint64
}

func newMark(t *testing.T) mark {
	t.Helper()
	fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	var about unix.Stat_t
	if err := unix.Fstat(fd, &about); err != nil {
		t.Fatal(err)
	}
	return mark{fd, about.Ino}
}

// rights returns a control message with count descriptors of the file.
func (m mark) rights(count int) []byte {
	if count == 0 {
		return nil
	}
	return unix.UnixRights(slices.Repeat([]int{m.fd}, count)...)
}

// expectClosed checks that this process has no descriptor of the file except m's own, and closes any others.
func (m mark) expectClosed(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		var about unix.Stat_t
		if err == nil && fd != m.fd && unix.Fstat(fd, &about) == nil && about.Ino == m.inode && about.Mode&unix.S_IFMT == unix.S_IFREG {
			t.Errorf("descriptor %d came and was not closed", fd)
			_ = unix.Close(fd)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
