package tests

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// health is the part of GET /health that the tests look at.
type health struct {
	code    int
	Workers map[string]int `json:"workers"`
	// Templates counts the ready ones of those that should be.
	Templates struct {
		Ready  int `json:"ready"`
		Target int `json:"target"`
	} `json:"templates"`
	Raw json.RawMessage `json:"-"`
}

func (c *caddy) health() (health, error) {
	var h health
	resp, err := c.client.Get(c.url + "/health")
	if err != nil {
		return h, err
	}
	defer func() { _ = resp.Body.Close() }()
	h.code = resp.StatusCode
	if h.Raw, err = io.ReadAll(resp.Body); err != nil {
		return h, err
	}
	return h, json.Unmarshal(h.Raw, &h)
}

// whole is true when every template is up and the idle workers are back.
func (h health) whole(idle int) bool {
	return h.code == 200 && h.Templates.Ready == h.Templates.Target && h.Workers["idle"] >= idle && h.Workers["leased"] == 0
}

func (c *caddy) waitHealthy(limit time.Duration) {
	c.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		h, err := c.health()
		if err == nil && h.code == 200 {
			return
		}
		select {
		case <-c.exited:
			c.Fatal("Caddy ended before it was healthy")
		default:
		}
		if late(limit, begin) {
			c.Fatalf("not healthy within %s: %d %s %v", limit, h.code, h.Raw, err)
		}
	}
}

// waitHealth polls /health until cond holds, and returns how long that took.
func (c *caddy) waitHealth(limit time.Duration, what string, cond func(health) bool) time.Duration {
	c.Helper()
	start := time.Now()
	for {
		h, err := c.health()
		took := time.Since(start)
		if err == nil && cond(h) {
			return took
		}
		if late(limit, start) {
			c.Fatalf("not within %s, %s on an idle machine: %s (%s %v)", took, limit, what, h.Raw, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answer is a response of POST /execute, result or problem.
type answer struct {
	code   int
	header http.Header
	raw    string
	began  time.Time
	took   time.Duration

	Stdout    string  `json:"stdout"`
	Stderr    string  `json:"stderr"`
	ExitCode  int     `json:"exit_code"`
	Status    any     `json:"status"` // a word in a result, a number in a problem
	Success   bool    `json:"success"`
	Truncated bool    `json:"truncated"`
	Detail    string  `json:"detail"`
	Type      string  `json:"type"`
	Time      float64 `json:"execution_time"`
}

// execute posts a request, which is encoded as JSON unless it is a string.
func (c *caddy) execute(ctx context.Context, request any) (answer, error) {
	return c.post(ctx, "/execute", request)
}

// post posts a request to one of our paths, likewise.
func (c *caddy) post(ctx context.Context, path string, request any) (answer, error) {
	body, ok := request.(string)
	if !ok {
		b, err := json.Marshal(request)
		if err != nil {
			return answer{}, err
		}
		body = string(b)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req)
}

func (c *caddy) do(req *http.Request) (answer, error) {
	start := time.Now()
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{code: resp.StatusCode, header: resp.Header, raw: string(b), began: start, took: time.Since(start)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		err = json.Unmarshal(b, &a)
	}
	return a, err
}

// run executes code and fails the test unless the answer is a result.
func (c *caddy) run(code string) answer {
	c.Helper()
	a, err := c.execute(context.Background(), map[string]any{"code": code})
	if err != nil || a.code != 200 {
		c.Fatalf("running %q: %d %s %v", code, a.code, a.raw, err)
	}
	return a
}

// mustPrint fails the test unless code prints want.
func (c *caddy) mustPrint(code, want string) {
	c.Helper()
	if a := c.run(code); a.Stdout != want {
		c.Fatalf("%q printed %q, not %q; stderr %q", code, a.Stdout, want, a.Stderr)
	}
}

// outcome runs a caddy command that is expected to end by itself and returns what it printed and its exit code.
func (c *caddy) outcome(args ...string) (string, int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := c.command(ctx, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		c.Fatalf("caddy %s did not end within 60 s:\n%s", args[0], tail(string(out), 4000))
	case err != nil && !errors.As(err, &exit):
		c.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
