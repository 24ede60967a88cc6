package tests

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// talk is a conversation with a client's program: it reads the names of scenarios, one a line, and says "ok" and the name when
// one has ended well. It ends when one has not, and when there is nothing more to read.
type talk struct {
	mcpClient
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   *lockedBuffer
	lines chan saidLine // closed when the program has ended
	said  map[string]time.Time
	err   error // how it ended; to be read when lines is closed
	gone  bool
}

// saidLine is a line of a program, and when it came.
type saidLine struct {
	text string
	at   time.Time
}

// mcpSites are where a client may look: the product, and the product with the tools of the fixtures besides.
type mcpSites struct{ product, extended string }

// command is the program of a client; nil where what it needs is not installed.
func (m mcpClient) command(t testing.TB, ctx context.Context, home string, sites mcpSites) *exec.Cmd {
	t.Helper()
	args := append(append([]string{m.program}, m.args...), sites.product, sites.extended)
	if m.program == "sdk.mjs" {
		return node(ctx, home, args...)
	}
	args[0] = filepath.Join(clientsDir, m.program)
	cmd := exec.CommandContext(ctx, clientPython, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "PYTHONDONTWRITEBYTECODE=1")
	switch m.program {
	case "sdk2.py":
		cmd.Env = append(cmd.Env, "PYTHONPATH="+mcp2Dir())
	case "inspector_cli.py":
		n := node(ctx, home)
		cmd.Dir, cmd.Env = n.Dir, append(n.Env, "NODE="+n.Path, "PYTHONDONTWRITEBYTECODE=1")
	}
	return cmd
}

// mcp2Dir is where version 2 of the Python SDK is, which cannot stand beside what mcpo needs.
func mcp2Dir() string { return filepath.Join(filepath.Dir(filepath.Dir(clientPython)), "mcp2") }

// installed are the clients that can be run here.
func installed(t testing.TB) []mcpClient {
	t.Helper()
	dir, _ := nodeClients()
	hasNode, hasPython := want(t, dir != "", needsNode), want(t, clientPython != "", needsClients)
	_, err := os.Stat(mcp2Dir())
	hasPython2 := hasPython && want(t, err == nil, "version 2 of the Python SDK is not installed: `make test` installs tests/requirements-mcp2.txt")
	need(t, hasNode || hasPython, "no MCP client is installed")
	var all []mcpClient
	for _, m := range mcpClients {
		if map[string]bool{"sdk.mjs": hasNode, "sdk1.py": hasPython, "sdk2.py": hasPython2, "mcpo_http.py": hasPython,
			"inspector_cli.py": hasNode && hasPython}[m.program] {
			all = append(all, m)
		}
	}
	return all
}

// startTalk starts the program of a client, which ends with ctx, and with the test.
func startTalk(t testing.TB, ctx context.Context, m mcpClient, home string, sites mcpSites) *talk {
	t.Helper()
	k := &talk{mcpClient: m, t: t, cmd: m.command(t, ctx, home, sites), log: &lockedBuffer{}, lines: make(chan saidLine, 100), said: map[string]time.Time{}}
	// They end what they have started.
	k.cmd.Cancel = func() error { return k.cmd.Process.Signal(syscall.SIGTERM) }
	k.cmd.WaitDelay = 10 * time.Second
	out, in := io.Pipe()
	k.cmd.Stdout, k.cmd.Stderr = in, k.log
	var err error
	if k.stdin, err = k.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		k.err = k.cmd.Wait()
		_ = in.Close()
	}()
	go func() {
		defer close(k.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			k.lines <- saidLine{scanner.Text(), time.Now()}
		}
	}()
	return k
}

// say writes a line to the program. That it has ended is seen when it is heard.
func (k *talk) say(line string) { _, _ = fmt.Fprintln(k.stdin, line) }

// hear waits until the program says that a scenario has ended well, and returns when that was. It reports that it did not, once.
func (k *talk) hear(scenario string) (at time.Time, ok bool) {
	for k.said[scenario].IsZero() {
		line, open := <-k.lines
		if !open {
			if !k.gone {
				k.gone = true
				k.t.Errorf("%s: %s: %v\n%s", k, scenario, k.err, tail(k.log.String(), 4000))
			}
			return at, false
		}
		k.said[strings.TrimPrefix(line.text, "ok ")] = line.at
	}
	at = k.said[scenario]
	delete(k.said, scenario)
	return at, true
}

// quit ends the program and reports if it ends badly.
func (k *talk) quit() {
	_ = k.stdin.Close()
	for range k.lines { //nolint:revive // until it has ended
	}
	if k.err != nil && !k.gone {
		k.gone = true
		k.t.Errorf("%s: at its end: %v\n%s", k, k.err, tail(k.log.String(), 4000))
	}
}

// talks are conversations with all clients that are not gone.
type talks struct {
	testing.TB
	c     *caddy
	all   []*talk
	mu    sync.Mutex
	times cellTimes
}

// startTalks starts all clients that have one of the scenarios, some at a time, and does something with each when it has connected.
func startTalks(t testing.TB, ctx context.Context, c *caddy, extended string, scenarios []scenarioInfo, then func(*talks, *talk)) *talks {
	t.Helper()
	home := t.TempDir()
	ks := &talks{TB: t, c: c, times: cellTimes{}}
	places := make(chan struct{}, 12) // more would keep each other from what they do within a time
	var wg sync.WaitGroup
	for _, m := range installed(t) {
		if !slices.ContainsFunc(scenarios, func(s scenarioInfo) bool { return m.lacks(s.name) == "" }) {
			continue
		}
		places <- struct{}{}
		k := startTalk(t, ctx, m, home, mcpSites{c.url, extended})
		t.Cleanup(k.quit)
		ks.all = append(ks.all, k)
		wg.Go(func() {
			defer func() { <-places }()
			if _, ok := k.hear("connect"); ok && then != nil {
				then(ks, k)
			}
		})
	}
	wg.Wait()
	return ks
}

// do has a client go through a scenario, if it has it.
func (ks *talks) do(k *talk, scenario string) {
	if k.lacks(scenario) != "" || k.gone {
		return
	}
	begin := time.Now()
	k.say(scenario)
	ks.ended(k, scenario, begin)
}

// ended waits until a scenario has ended that began before.
func (ks *talks) ended(k *talk, scenario string, begin time.Time) {
	if at, ok := k.hear(scenario); ok {
		ks.mu.Lock()
		defer ks.mu.Unlock()
		ks.times[mcpCell{k.String(), scenario}] = at.Sub(begin)
	}
}

// with are those that have a scenario and are not gone.
func (ks *talks) with(scenario string) []*talk {
	var some []*talk
	for _, k := range ks.all {
		if k.lacks(scenario) == "" && !k.gone {
			some = append(some, k)
		}
	}
	return some
}

// inStep tells all that have a scenario to begin it, calls happens with their number, and waits until it has ended for all.
func (ks *talks) inStep(scenario string, happens func(n int, all []*talk)) {
	all, begin := ks.with(scenario), time.Now()
	for _, k := range all {
		k.say(scenario)
	}
	happens(len(all), all)
	for _, k := range all {
		ks.ended(k, scenario, begin)
	}
}

// again has each make one more call.
func (ks *talks) again(all []*talk) {
	for _, k := range all {
		k.say("again")
	}
	for _, k := range all {
		k.hear("again")
	}
}
