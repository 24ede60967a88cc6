package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/python"
)

// attemptsTimeout bounds the probe, which takes some milliseconds.
const attemptsTimeout = 20 * time.Second

// probeWords name the guarantees in what python/attempts.py prints.
var probeWords = []string{
	confine.GuaranteeReads: "reads", confine.GuaranteeWrites: "writes", confine.GuaranteeNetwork: "network", confine.GuaranteeProcesses: "processes",
	confine.GuaranteePrivilege: "privilege", confine.GuaranteeBounds: "bounds", confine.GuaranteeLeftovers: "leftovers",
}

// probe runs a program in a worker of t that tries to do what the guarantees forbid. The plan says which layers should hold; the probe
// shows whether they do. It empties the layers of each guarantee that the program got past.
func (p *Pool) probe(ctx context.Context, t *template, sys confine.System) error {
	ctx, cancel := context.WithTimeout(ctx, attemptsTimeout)
	defer cancel()
	host, clean, err := p.bait(sys)
	defer clean()
	if err != nil {
		return fmt.Errorf("preparing the test of the confinement: %w; set TMPDIR to a directory that Caddy may write to", err)
	}
	attempts, err := python.Sources.ReadFile("attempts.py")
	if err != nil {
		return err
	}
	out, err := p.runProbe(ctx, t, fmt.Sprintf("HOST = %q\n%s", host, attempts))
	if err != nil {
		return err
	}
	var could map[string][]string
	if err := json.Unmarshal([]byte(out), &could); err != nil {
		return fmt.Errorf("the probe did not end as it should: %.500q", out)
	}
	for i := range p.guarantees {
		if got := could[probeWords[i]]; len(got) > 0 && len(p.guarantees[i].Layers) > 0 {
			p.guarantees[i].Layers = []string{}
			p.guarantees[i].Reason = "a test program could " + strings.Join(got, ", ")
		}
	}
	return nil
}

// bait makes a file, a directory and sockets on the host that a program must not reach, and describes them as JSON. clean removes them.
func (p *Pool) bait(sys confine.System) (description string, clean func(), err error) {
	var listeners []net.Listener
	dir, err := os.MkdirTemp("", "python-sandbox-probe-")
	clean = func() {
		for _, l := range listeners {
			_ = l.Close()
		}
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	if err != nil {
		return "", clean, err
	}
	secret := filepath.Join(dir, "secret")
	err = errors.Join(os.WriteFile(secret, []byte("secret"), 0o644), os.Chmod(dir, 0o777))
	if err != nil {
		return "", clean, err
	}
	listen := func(network, address string) net.Addr {
		l, listenErr := net.Listen(network, address) //nolint:noctx // a local address: it does not wait
		if listenErr != nil {
			err = errors.Join(err, listenErr)
			return nil
		}
		listeners = append(listeners, l)
		return l.Addr()
	}
	abstract := filepath.Base(dir)
	listen("unix", "@"+abstract)
	tcp, _ := listen("tcp", "127.0.0.1:0").(*net.TCPAddr)
	if err != nil {
		return "", clean, err
	}
	socket := filepath.Join(dir, "socket")
	if listen("unix", socket); err != nil {
		socket, err = "", nil // the path is longer than a socket's may be
	} else if err := os.Chmod(socket, 0o777); err != nil {
		return "", clean, err
	}
	description = mustJSON(map[string]any{
		"directory": dir, "secret": secret, "socket": socket, "abstract": abstract, "port": tcp.Port, "pid": os.Getpid(),
		"seccomp": sys.Seccomp,
	})
	return description, clean, nil
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}

// runProbe runs code in the one worker of a lane of its own, as Execute does, and returns what it printed.
func (p *Pool) runProbe(ctx context.Context, t *template, code string) (string, error) {
	l, err := startLane(t, laneStartTimeout)
	if err != nil {
		return "", describeStart(err)
	}
	defer func() {
		l.kill()
		l.wait()
		l.close()
		if p.scratchDir != "" {
			scratch.RemoveOf(p.scratchDir, l.pid)
		}
	}()
	stop := context.AfterFunc(ctx, l.kill)
	defer stop()
	w := newWorker(l, StateBooting)
	theirs, err := w.open()
	if err != nil {
		return "", err
	}
	defer w.closePipes()
	if err := w.boot(theirs, p.processLimit()); err != nil {
		return "", describeStart(err)
	}
	if err := w.start(Request{Code: code}); err != nil {
		return "", err
	}
	line, err := l.control.Word()
	if err != nil {
		return "", fmt.Errorf("the probe was lost: %w", err)
	}
	e, err := parseExit(line)
	if err != nil {
		return "", err
	}
	stdout, stderr := newCapture(1<<16), newCapture(1<<16)
	collect(w.stdout, stdout)
	collect(w.stderr, stderr)
	text, _ := stdout.text()
	if e.status != 0 {
		errorText, _ := stderr.text()
		return "", fmt.Errorf("the probe failed (status %#x): %s", int(e.status), process.LastLine(errorText))
	}
	return text, nil
}
