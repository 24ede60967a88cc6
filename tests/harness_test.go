// Package tests runs the real Caddy, built once, against real clients and real Python. Nothing is mocked.
package tests

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

var (
	// caddyBinary is what is under test: $SANDBOX_TEST_CADDY, or built by TestMain.
	caddyBinary string
	// clientPython is the interpreter with tests/requirements.txt installed: $SANDBOX_TEST_PYTHON, or the one that
	// `make test` makes. Empty when there is none.
	clientPython string
	// clientsDir is where the programs of clients are that it runs.
	clientsDir string
	// buildDir is for what tests build.
	buildDir string
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sandbox-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Some tests run Caddy as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	buildDir = dir
	if clientsDir, err = filepath.Abs("clients"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if caddyBinary = os.Getenv("SANDBOX_TEST_CADDY"); caddyBinary == "" {
		caddyBinary = filepath.Join(dir, "caddy")
		build := exec.Command("go", "build", "-p", "2", "-o", caddyBinary, "../cmd/caddy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building Caddy: %v\n%s", err, out)
			return 1
		}
	}
	clientPython = os.Getenv("SANDBOX_TEST_PYTHON")
	if clientPython == "" {
		if made := "../.venv-tests/bin/python"; exec.Command(made, "-c", "").Run() == nil {
			clientPython = made
		}
	}
	if clientPython != "" {
		if clientPython, err = filepath.Abs(clientPython); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	// Most of the time is spent waiting for programs that take their time: more tests may run at once than there are processors, unless
	// the caller says otherwise.
	flag.Parse()
	parallel := strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			parallel = f.Value.String()
		}
	})
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go pace.run()
	return m.Run()
}

const needsClients = "the Python clients are not installed: `make test` installs tests/requirements.txt, or set SANDBOX_TEST_PYTHON"

const needsRoot = "only root can start Caddy as root: run the tests as root, too"

// want says whether a prerequisite of a part of a test is there, and logs that it is not; in CI it must be.
func want(t testing.TB, ok bool, sentence string) bool {
	t.Helper()
	if !ok && os.Getenv("CI") == "true" {
		t.Fatal(sentence)
	}
	if !ok {
		t.Log(sentence)
	}
	return ok
}

// need skips a test whose prerequisite is missing, except in CI, where everything must be there.
func need(t testing.TB, ok bool, sentence string) {
	t.Helper()
	if !ok {
		skip.Without(t, sentence)
	}
}

// caddyOptions shape a Caddy under test. The zero value is the module's default.
type caddyOptions struct {
	// directive is what stands between the braces of python_sandbox.
	directive string
	// site is more directives of the site, and global more of the global options.
	site, global string
	// binary is another Caddy than the one under test.
	binary string
	// credential runs Caddy as another user, whose home directory is home.
	credential *syscall.Credential
	home       string
	// noNamespaces starts Caddy as in a container whose seccomp profile refuses namespaces.
	noNamespaces bool
	// noTracing also forbids processes to trace others, as a stricter profile or the system's settings do.
	noTracing bool
	// env is more of its environment.
	env []string
}

// caddy is a running Caddy.
type caddy struct {
	testing.TB
	o          caddyOptions
	dir        string // world-readable; TMPDIR of the server is its own directory below
	addr, url  string
	admin      string
	configFile string
	cmd        *exec.Cmd
	log        *lockedBuffer
	exited     chan struct{}
	client     *http.Client
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sharedDir is a directory that other users may enter, unlike t.TempDir's.
func sharedDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// prepare writes the configuration of a Caddy without starting it.
func prepare(t testing.TB, o caddyOptions) *caddy {
	t.Helper()
	dir := sharedDir(t)
	c := &caddy{
		TB: t, o: o, dir: dir, addr: freeAddr(t), admin: freeAddr(t), log: &lockedBuffer{},
		configFile: filepath.Join(dir, "Caddyfile"), exited: make(chan struct{}),
		client: &http.Client{Timeout: 150 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128}},
	}
	c.url = "http://" + c.addr
	if c.o.home == "" {
		c.o.home = filepath.Join(dir, "home")
		mkdirFor(t, c.o.home, 0o755, o.credential)
	}
	mkdirFor(t, c.tmp(), 0o755, o.credential)
	c.configure(o.directive, o.site)
	return c
}

func (c *caddy) tmp() string { return filepath.Join(c.dir, "tmp") }

func mkdirFor(t testing.TB, dir string, mode os.FileMode, who *syscall.Credential) {
	t.Helper()
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// configure writes the Caddyfile: a site without a host name, as the shipped one, and a page for unknown paths.
func (c *caddy) configure(directive, site string) {
	c.Helper()
	_, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		c.Fatal(err)
	}
	text := fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https off
	storage file_system %s
	%s
}
http://:%s {
	bind 127.0.0.1
	%s
	python_sandbox {
		%s
	}
	respond "no such page" 404
}
`, c.admin, filepath.Join(c.o.home, "storage"), c.o.global, port, site, directive)
	if err := os.WriteFile(c.configFile, []byte(text), 0o644); err != nil { // read by another user
		c.Fatal(err)
	}
}

// command is a caddy command line in the environment of the server.
func (c *caddy) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, cmp.Or(c.o.binary, caddyBinary), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.o.home, "TMPDIR=" + c.tmp(), "LANG=C.UTF-8"}
	cmd.Env = append(cmd.Env, c.o.env...)
	if c.o.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.o.credential}
	}
	if c.o.noNamespaces {
		refuseNamespacesTo(cmd)
		if c.o.noTracing {
			cmd.Env = append(cmd.Env, withoutTracing+"=1")
		}
	}
	return cmd
}

// startCaddy starts a Caddy and waits until it is healthy. It is ended with the test.
func startCaddy(t testing.TB, o caddyOptions) *caddy {
	t.Helper()
	c := prepare(t, o)
	c.start()
	return c
}

// start starts what was prepared and waits until it is healthy. It is ended with the test.
func (c *caddy) start() {
	c.Helper()
	c.cmd = c.command(context.Background(), "run", "--config", c.configFile, "--adapter", "caddyfile")
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		c.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	c.Cleanup(c.stop)
	c.waitHealthy(60 * time.Second)
}

// expectExit waits until Caddy has ended.
func (c *caddy) expectExit(limit time.Duration, what string) {
	c.Helper()
	eventually(c, limit, "the end of Caddy, "+what, func() bool {
		select {
		case <-c.exited:
			return true
		default:
			return false
		}
	})
}

func (c *caddy) pid() int { return c.cmd.Process.Pid }

func (c *caddy) stop() {
	c.client.CloseIdleConnections()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(30 * time.Second):
		c.Error("Caddy did not end within 30 s of SIGTERM")
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	if c.Failed() {
		var said []string
		for line := range strings.Lines(c.log.String()) {
			if !strings.Contains(line, `"msg":"executed"`) {
				said = append(said, line)
			}
		}
		c.Logf("log of Caddy:\n%s", tail(strings.Join(said, ""), 8000))
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(10 * time.Millisecond) {
		if late(limit, begin) {
			t.Fatalf("not within %s, %s on an idle machine: %s", time.Since(begin).Round(time.Millisecond), limit, what)
		}
	}
}
