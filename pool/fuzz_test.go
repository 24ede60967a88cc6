package pool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// Whatever a template, lane or worker sends, Go must neither panic, nor leave a descriptor open, nor mix up requests. The tests play these
// processes, over the sockets and pipes that they would have. `make fuzz` goes on from these seeds.

// exitWord returns a lane's packet about the end of a worker: the status of wait4(2), the CPU time in microseconds and the peak in KiB.
func exitWord(status uint32, cpu, peak int64) string {
	word := binary.NativeEndian.AppendUint32([]byte("exit"), status)
	usage := [18]int64{1: cpu, 4: peak}
	for _, number := range usage {
		word = binary.NativeEndian.AppendUint64(word, uint64(number))
	}
	return string(word)
}

func FuzzParseExit(f *testing.F) {
	whole := exitWord(0, 1830, 13000)
	for _, line := range []string{whole, exitWord(9, 0, 0), exitWord(256, 1, 1), exitWord(139, 1, 1), exitWord(4991, 0, 0), exitWord(0, -1, 0), exitWord(0, 0, -1),
		exitWord(1<<32-1, 0, 0), exitWord(1<<16, 0, 0), exitWord(0, math.MaxInt64, math.MaxInt64), exitWord(0, math.MaxUint32+1, 0), exitWord(0, 0, 1<<53),
		whole[:len(whole)-1], whole + "\x00", "exit" + whole, "exi" + whole[4:], "exit", "leave", "ready", ""} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parseExit([]byte(line))
		if err != nil {
			if !errors.Is(err, process.ErrProtocol) {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		if !strings.HasPrefix(line, "exit") || e.cpu < 0 || e.maxRSSBytes < 0 || e.lost {
			t.Errorf("%q is taken for %+v", line, e)
		}
		for _, reason := range Reasons {
			status, code, err := outcome(reason, e)
			if err == nil && (status == "" || code < 0 || code > 255 || (code == 0) != (status == StatusOK)) {
				t.Errorf("%q, %s: the caller is told %s, %d", line, reason, status, code)
			}
		}
	})
}

func FuzzParseFailure(f *testing.F) {
	for _, packet := range []string{`{"event":"failed","step":"mounting /proc","error":"Operation not permitted"}`, `{"event":"failed"}`, `{"event":"ready"}`,
		`{"event":"failed","step":"preload x","error":"\ud800"}`, `{"event":"failed","step":"confining","error":1}`, `{"event":"failed","event":"x"}`, "failed", "null", "[]", "",
		"{\"event\":\"failed\",\"step\":\"\xff\",\"error\":\"\x00\"}", strings.Repeat("[", 5000), `{"event":"failed","step":"preload\n\u001b[2J"}`} {
		f.Add([]byte(packet))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		err := process.ParseFailure(packet)
		var step *process.StepError
		switch {
		case err == nil:
			t.Fatalf("%q is no failure", packet)
		case errors.As(err, &step):
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 3*len(packet) || !bytes.Contains(packet, []byte("failed")) && !bytes.Contains(packet, []byte(`\u`)) {
				t.Errorf("%q is taken for %q", packet, err)
			}
		case !errors.Is(err, process.ErrProtocol):
			t.Errorf("%q: %v", packet, err)
		}
		if describeStart(err) == nil {
			t.Errorf("%q: the error is lost", packet)
		}
		_ = lackOfNamespaces(err, 0)
	})
}

func FuzzControlRead(f *testing.F) {
	// Three bytes for each packet: how many descriptors it carries, its size (64 times this byte, less one), and the byte that fills it.
	for _, script := range []string{"\x01\x00e", "\x00\x01x\x02\x01y", "\x03\x01z", "\x04\x01z", "\x01\x00x", "\x02\x00x", "\x01\x80x", "\x01\x81x", "\x02\xffx", "\x00\x00x",
		"\x01\x01a\x01\x01b\x01\x01c\x01\x00d"} {
		f.Add([]byte(script))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		c, theirs, err := process.NewControl()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		defer theirs.Close()
		mark := newMark(t)
		for tape := tape(script); len(tape) >= 3; {
			count := []int{0, 1, 2, 3, 100}[tape.next()%5]
			size := max(0, int(tape.next())*64-1)
			packet := bytes.Repeat([]byte{tape.next()}, size)
			if err := sendPacket(int(theirs.Fd()), packet, mark.rights(count)); err != nil {
				t.Fatal(err)
			}
			got, fd, err := c.Read()
			if err == nil && (fd >= 0) != (count > 0) {
				t.Errorf("%d descriptors were sent, and %d was given", count, fd)
			}
			if fd >= 0 {
				_ = unix.Close(fd)
			}
			mark.expectClosed(t)
			switch {
			case size == 0 && !errors.Is(err, io.EOF), size > process.MaxMessage && err == nil, size > 0 && size <= process.MaxMessage && !bytes.Equal(got, packet):
				t.Fatalf("of %d bytes %d came, %v", size, len(got), err)
			case err != nil:
				return
			}
		}
		_ = theirs.Close()
		if got, fd, err := c.Read(); err == nil || fd >= 0 {
			t.Errorf("read %q, %d of a closed socket", got, fd)
		}
	})
}

func FuzzWorkerBoot(f *testing.F) {
	long := strings.Repeat("x", 4095)
	for _, say := range []string{"ready\n", "ready", "ready\n\n", "ready\nready\n", "ready\nrun\nprint(1)", "\n", "", "ready\x00\n", "\x00\x00\x00", long, long + "\n", long + "x\n", long + "xready\n",
		`{"event":"failed","step":"confining","error":"no"}` + "\n", `{"event":"failed"`, "not ready\n"} {
		f.Add([]byte(say), []byte{}, byte(0))
		f.Add([]byte(say), []byte{1, 2, 0, 3}, byte(1))
		f.Add([]byte(say), bytes.Repeat([]byte{1}, 64), byte(5))
	}
	f.Fuzz(func(t *testing.T, say, cuts []byte, rights byte) {
		if len(say) > 1<<15 {
			t.Skip("more than a socket takes at once")
		}
		ours, theirs, err := process.NewControl()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer theirs.Close()
		w := newWorker(&lane{control: ours, pid: noParent}, StateBooting)
		fds, err := w.open()
		if err != nil {
			t.Fatal(err)
		}
		defer w.closePipes()
		mark := newMark(t)
		said := make(chan struct{})
		go func() {
			defer close(said)
			held := receiveBoot(int(theirs.Fd()))
			defer process.CloseAll(held)
			if len(held) < 4 {
				t.Errorf("boot came with %d descriptors", len(held))
				return
			}
			for rest, i := say, 0; len(rest) > 0; i++ {
				n := len(rest)
				if i < len(cuts) {
					n = min(n, int(cuts[i]))
				}
				if sendPacket(held[3], rest[:n], mark.rights(int(rights%4))) != nil {
					return // Go has closed its end
				}
				rest = rest[n:]
			}
		}()
		err = w.boot(fds, 0)
		w.closePipes()
		<-said
		mark.expectClosed(t)
		switch ready := bytes.HasPrefix(say, []byte("ready\n")); {
		case err == nil && !ready, err != nil && ready && len(say) == len("ready\n"):
			t.Errorf("%q: %v", say, err)
		case err == nil && int(w.pid.Load()) != os.Getpid():
			t.Errorf("its pid is %d", w.pid.Load())
		}
		if err != nil && len(err.Error()) > 3*4096+200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// maxOutputRoom bounds the bytes that a capture holds for each character of its limit: 4 bytes of UTF-8, twice for head and tail, and twice
// for the capacity that append reserves.
const maxOutputRoom = 4 * utf8.UTFMax

func FuzzOutput(f *testing.F) {
	f.Add([]byte("Hello\n"), uint16(1), uint16(10), uint16(64), uint32(1<<20))
	f.Add([]byte("\xff\xe2\x82"), uint16(3000), uint16(7), uint16(1), uint32(1000))
	f.Add([]byte("€\xf0\x9f\x98"), uint16(999), uint16(2), uint16(5), uint32(9))
	f.Add([]byte("\x00\x00\n"), uint16(60000), uint16(3), uint16(4096), uint32(100000))
	f.Add(bytes.Repeat([]byte{0x80}, 4097), uint16(2), uint16(5000), uint16(4096), uint32(4096))
	f.Add([]byte{}, uint16(0), uint16(2), uint16(1), uint32(0))
	f.Fuzz(func(t *testing.T, unit []byte, times, limit, step uint16, kill uint32) {
		if limit < 2 || step < 1 || len(unit)*int(times) > 1<<18 || len(unit)*int(times)/int(step) > 1<<12 {
			t.Skip("outside the bounds of Normalize, or slow")
		}
		stream := bytes.Repeat(unit, int(times))
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		go func() {
			defer write.Close()
			for rest := stream; len(rest) > 0; {
				n := min(len(rest), int(step))
				if _, err := write.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}()
		c := newCapture(int(limit))
		var total atomic.Int64
		overs := 0
		drain(read, c, &total, int64(kill), func() { overs++ })
		if total.Load() != int64(len(stream)) || c.bytes != total.Load() || (overs > 0) != (len(stream) > int(kill)) || overs > 1 {
			t.Errorf("of %d bytes %d and %d are counted, and %d times they are more than %d", len(stream), total.Load(), c.bytes, overs, kill)
		}
		if held := cap(c.head) + cap(c.ring) + cap(c.carry); held > maxOutputRoom*int(limit)+1024 {
			t.Errorf("holds %d bytes for %d characters", held, limit)
		}
		text, cut := c.text()
		if !utf8.ValidString(text) || len(text) > utf8.UTFMax*int(limit)+64 || cut != (utf8.RuneCount(stream) > int(limit)) {
			t.Errorf("%d bytes of text of %d characters, cut %t", len(text), utf8.RuneCountInString(text), cut)
		}
		if want := model(int(limit), string(stream)); text != want {
			t.Errorf("got %.200q, want %.200q", text, want)
		}
	})
}

// The last line that a process writes to standard error before it ends becomes a part of an error message.
func FuzzStandardError(f *testing.F) {
	f.Add([]byte("Traceback\nImportError: x\n"), byte(3))
	f.Add([]byte("\xff\xfe\n\n\n"), byte(1))
	f.Add(bytes.Repeat([]byte("€\r\n"), 3000), byte(200))
	f.Fuzz(func(t *testing.T, said []byte, step byte) {
		var kept process.Tail
		for rest := said; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if m, err := kept.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		text := kept.String()
		line := process.LastLine(text)
		if !utf8.ValidString(text) || len(text) > 4096 || !utf8.ValidString(line) || utf8.RuneCountInString(line) > 203 || strings.Contains(line, "\n") {
			t.Errorf("%q is shown as %q", said, line)
		}
		if text := process.LastLine(string(said)); utf8.RuneCountInString(text) > 203 {
			t.Errorf("%q is shown as %q", said, text)
		}
	})
}

// A template may answer a request that was not made, answer twice or without a pidfd, or not answer. Each caller still gets exactly one
// answer, and no pidfd stays open.
func FuzzTemplate(f *testing.F) {
	// Two bytes for each packet: how many descriptors it carries, and which text.
	for _, script := range []string{"\x01\x00", "\x01\x01\x01\x00", "\x00\x00", "\x02\x00", "\x01\x00\x01\x00", "\x01\x02", "\x01\x03\x01\x00", "\x01\x04", "\x01\x05", "\x01\x06", "\x02\x07\x01\x01", "\x03\x08", "\x01\x09", ""} {
		f.Add([]byte(script))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		ours, theirs, err := process.NewControl()
		if err != nil {
			t.Fatal(err)
		}
		mark := newMark(t)
		gone := make(chan struct{})
		close(gone)
		tm := &template{Process: &process.Process{Control: ours, Cmd: &exec.Cmd{Process: &os.Process{}}, Exited: gone}, lanes: map[int]chan<- laneStart{}}
		var asked [2]chan laneStart
		for i := range asked {
			asked[i] = make(chan laneStart, 1)
			tm.lanes[i] = asked[i]
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			tm.receive()
		}()
		for tape := tape(script); len(tape) >= 2; {
			count := int(tape.next() % 4)
			say := [...]string{"lane 0", "lane 1", "lane 7", "lane", "lane ", "lane -1", "lane 99999999999999999999", "", "lane 0 0", strings.Repeat("x", process.MaxMessage+1),
				"failed 0 why", "failed 1", "failed", "failed x y"}[tape.next()%14]
			if sendPacket(int(theirs.Fd()), []byte(say), mark.rights(count)) != nil {
				break // Go has closed its end
			}
		}
		_ = theirs.Close()
		<-done
		for i := range asked {
			select {
			case answer := <-asked[i]:
				if (answer.pidfd == nil) == (answer.err == nil) {
					t.Errorf("the answer to %d is %+v", i, answer)
				}
				if answer.pidfd != nil {
					_ = answer.pidfd.Close()
				}
			default:
				t.Errorf("%d was not answered", i)
			}
		}
		mark.expectClosed(t)
		if conn, _, _, err := tm.forkLane(time.Now().Add(time.Second)); !errors.Is(err, process.ErrGone) {
			t.Errorf("forked %v of a template that is gone, %v", conn, err)
		}
	})
}

// Two lanes send anything at any time. Each request still ends, and never with the output of another one.
func FuzzLanes(f *testing.F) {
	const honest = "\x00\x01\x02\x03"
	for _, script := range []string{
		honest + honest + honest, "\x00\x01\x02\x05\x00\x01\x02\x03", "\x03\x03\x00\x03\x01\x02", "\x00\x03\x00\x03\x00\x03", "\x00\x01\x06\x00", "\x00\x01\x02\x04", "\x00\x01\x02\x0b" + honest,
		"\x00\x01\x02\x07\x01", "\x00\x01\x02\x07\x02" + honest, "\x00\x09\x08\x03" + honest, "\x00\x01\x08\x02\x03", "\x0a", "\x06\x41", "\x00\x01\x01\x0c\x02\x03", "\x00\x01\x00\x02\x05\x05" + honest, "\x00\x0d\x03" + honest,
	} {
		f.Add([]byte(script), []byte(honest+honest))
		f.Add([]byte(script), []byte{})
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		before := openDescriptors(t)
		p := newBarePool(t)
		var lanes sync.WaitGroup
		for _, script := range [][]byte{first, second} {
			l := newScriptedLane(t, p)
			lanes.Go(func() { l.play(script[:min(len(script), 20)]) })
		}
		p.mu.Lock()
		p.refillLocked(p.current)
		p.mu.Unlock()
		var requests sync.WaitGroup
		for i := range 4 {
			requests.Go(func() {
				own := fmt.Sprintf("request %d;", i)
				r, err := p.Execute(t.Context(), Request{Code: own, Timeout: 5 * time.Second})
				switch {
				case strings.ReplaceAll(r.Stdout, own, "") != "" || r.Stderr != "" || r.Usage.CPUTime < 0 || r.Usage.PeakMemory < 0:
					t.Errorf("%s: %v, %+v", own, err, r)
				case err == nil && (r.Status == "" || r.ExitCode < 0 || r.ExitCode > 255):
					t.Errorf("%s: %+v", own, r)
				case err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrWorkerLost) && !errors.Is(err, ErrNotStarted) && !errors.Is(err, ErrAcquireTimeout):
					t.Errorf("%s: %v", own, err)
				}
			})
		}
		lanes.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		requests.Wait()
		p.mu.Lock()
		if len(p.lanes)+len(p.current.free)+len(p.current.idle)+len(p.leased)+p.current.beingForked()+p.waiters.Len() > 0 {
			t.Errorf("left: %d lanes, %d free, %d idle, %d leased, %d being forked, %d waiting", len(p.lanes), len(p.current.free), len(p.current.idle), len(p.leased), p.current.beingForked(), p.waiters.Len())
		}
		p.mu.Unlock()
		eventually(t, 5*time.Second, "every descriptor is closed", func() bool { return openDescriptors(t) <= before })
	})
}
