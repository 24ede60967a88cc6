package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// notHeld are cases of cases/hostile*.json that the sandbox does not hold with namespaces, by id, with the reason, which docs/security.md
// tells, too.
var notHeld = map[string]string{
	"numbers-left": "the kernel numbers the processes of a pid namespace on, and starts again only for who has CAP_CHECKPOINT_RESTORE " +
		"there: the first number of a run tells how many processes ran in its lane before",
}

// A hostile run takes nothing from its host, its neighbours or the next run, in any world.
func TestHostile(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hostile", "hostile-more"} {
		inEachWorld(t, "", func(t *testing.T, c *caddy) {
			for _, ec := range readCases(t, "cases/"+name+".json") {
				if reason, ok := notHeld[ec.ID]; ok && !c.o.noNamespaces {
					t.Logf("%s is not held: %s", ec.ID, reason)
					continue
				}
				t.Run(name+"/"+ec.ID, func(t *testing.T) { tryCase(t, c, ec.runCase) })
			}
			c.mustPrint("print(1)", "1\n")
			c.expectNoScratch()
		})
	}
}

// While runs take what the kernel counts for a user, neighbours with the same user are answered, or told that the server is busy, and
// when they have ended all is as before: the listener, the pool, and Caddy's own descriptors.
func TestNeighboursOfHostileRuns(t *testing.T) {
	t.Parallel()
	attacks := map[string]bool{"memory-of-epoll": true, "memory-of-sockets": true, "descriptors-in-flight": true, "descriptors-in-flight-in-packets": true,
		"watches-of-many-descriptors": true, "memory-of-packets": true, "sessions-without-end": true}
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		c.client.Transport = &http.Transport{DisableKeepAlives: true} // each request is a connection that is accepted
		var attackers sync.WaitGroup
		found := 0
		for _, name := range []string{"hostile", "hostile-more"} {
			for _, ec := range readCases(t, "cases/"+name+".json") {
				if attacks[ec.ID] {
					found++
					attackers.Go(func() {
						if a, err := c.execute(t.Context(), ec.Request); err != nil {
							t.Errorf("%s: %d %v", ec.ID, a.code, err)
						}
					})
				}
			}
		}
		if found != len(attacks) {
			t.Errorf("%d of %d attacks are cases", found, len(attacks))
		}
		over := make(chan struct{})
		go func() {
			attackers.Wait()
			close(over)
		}()
		answered := 0
		for attacked := true; attacked; {
			select {
			case <-over:
				attacked = false
			default:
				a, err := c.execute(t.Context(), map[string]any{"code": "print(1)"})
				if err != nil || a.code != http.StatusServiceUnavailable && (a.code != http.StatusOK || a.Stdout != "1\n") {
					t.Errorf("a neighbour got %d %.300s %v", a.code, a.raw, err)
					attacked = false
				}
				answered++
			}
		}
		<-over
		if answered < 3 {
			t.Errorf("%d neighbours were answered while the attacks went on", answered)
		}
		begin := time.Now()
		c.mustPrint("print(2)", "2\n")
		if late(2*time.Second, begin) {
			t.Errorf("after the attacks an answer took %s", time.Since(begin))
		}
	})
}

// Descriptors on their way between sockets are counted for the user. A run that holds as many as it may keeps no worker of others with the
// same user from starting, and none that cannot start stays behind.
func TestDescriptorsInFlightKeepNobodyFromStarting(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "workers {\n max 6\n idle 1\n }", func(t *testing.T, c *caddy) {
		const hold = `
import array, os, socket, time
fd, keep, sent = os.open("/dev/null", os.O_RDONLY), [], 0
try:
    for _ in range(60):
        a, b = socket.socketpair(); keep += [a, b]
        for _ in range(20):
            a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 200))]); sent += 200
except OSError: pass
print(sent, flush=True)
time.sleep(3)
`
		held := make(chan string, 1)
		go func() {
			a, err := c.execute(t.Context(), map[string]any{"code": hold})
			if err != nil {
				t.Error(err)
			}
			held <- a.Stdout
		}()
		for n := range 25 {
			begin := time.Now()
			if a := c.run("print(1)"); a.Stdout != "1\n" || late(5*time.Second, begin) {
				t.Errorf("neighbour %d, after %s: %+v", n, time.Since(begin), a)
			}
			time.Sleep(50 * time.Millisecond) // the runs are to fall into the time in which the descriptors are held
		}
		if sent := <-held; sent == "0\n" || sent == "" {
			t.Errorf("the attack held %q descriptors", sent)
		}
		c.stop()
		eventually(t, 10*time.Second, "the end of all that ran", func() bool { return len(processesIn(t, c.dir)) == 0 })
	})
}

// processesIn lists the processes whose working directory is below dir, or was.
func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range all {
		if target, err := os.Readlink(cwd); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, cwd+" "+target)
		}
	}
	return found
}
