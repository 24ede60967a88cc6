package tests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A run that takes long gives way to others, however its processes are spread: each of them has a lower priority, and each
// session, which the kernel may share out CPU time by. A run may not make sessions without end.
func TestRunsOfManySessionsGiveWay(t *testing.T) {
	t.Parallel()
	var turn sync.Mutex // the kernel limits how fast the priorities of sessions change, in all worlds together
	inEachWorld(t, "limits {\n processes 64\n execute_timeout 300s 300s\n }", func(t *testing.T, c *caddy) {
		turn.Lock()
		defer turn.Unlock()
		const nice = "13"
		name := fmt.Sprintf("zz%d", c.pid())
		program := `
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"` + name + `", 0, 0, 0)
made = 0
for _ in range(20):
    r, w = os.pipe()
    if os.fork() == 0:
        try: os.setsid(); os.write(w, b"y")
        except OSError: os.write(w, b"n")
        os.close(w)
        time.sleep(300)   # a run that takes long gives way, whether it computes or not, and this machine has other tests to run
    made += os.read(r, 1) == b"y"; os.close(r); os.close(w)
assert made == 16, made
time.sleep(300)
`
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan string, 1)
		go func() {
			a, err := c.execute(ctx, map[string]any{"code": program, "timeout": 200})
			ended <- fmt.Sprint(err, " ", a.Stderr)
		}()
		var seen string
		lowered := func() bool {
			c.mustPrint("print(1)", "1\n") // there is somebody to give way to
			var burning int
			seen = ""
			for _, p := range descendants(t, c.pid()) {
				dir := fmt.Sprintf("/proc/%d/", p.pid)
				stat, _ := os.ReadFile(dir + "stat")
				if !bytes.Contains(stat, []byte("("+name+")")) {
					continue
				}
				burning++
				_, rest, _ := strings.Cut(string(stat), ") ")
				fields := strings.Fields(rest)
				group, err := os.ReadFile(dir + "autogroup") // "/autogroup-23 nice 13"; not every kernel has them
				if fields[16] != nice || err == nil && !strings.HasSuffix(strings.TrimSpace(string(group)), " "+nice) {
					seen += fmt.Sprintf("process %d of session %s: nice %s, %s", p.pid, fields[3], fields[16], group)
				}
			}
			if burning <= 20 {
				seen += fmt.Sprintf("%d processes", burning)
			}
			return seen == ""
		}
		begin := time.Now()
		for !lowered() {
			select {
			case why := <-ended:
				t.Fatalf("it has ended: %s", why)
			default:
			}
			if late(20*time.Second, begin) {
				t.Fatalf("not all give way, after %s:\n%s", time.Since(begin), seen)
			}
		}
		cancel()
		<-ended
		// One after the other, they are no more than a program needs.
		c.mustPrint("import subprocess\nfor _ in range(40): subprocess.run([\"true\"], start_new_session=True, check=True)\nprint(1)", "1\n")
	})
}
