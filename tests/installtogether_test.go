package tests

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// Who asks for the same while it is being installed shares the work, over whichever surface.
func TestInstallIsSharedBySurfaces(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	slow := twoModules("sbx-slow", "1.0").File()
	slow.Delay, slow.NoMetadata = 3*time.Second, true
	x.Add(index.Project{Name: "sbx-slow", Files: []index.File{slow}})
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	sessions := []*mcpSession{dialMCP(t, c, "http"), dialMCP(t, c, "sse")}
	var wait sync.WaitGroup
	wait.Go(func() {
		if a, err := c.tryInstall(t.Context(), "sbx-slow", ""); err != nil || a.Status != "installed" {
			t.Errorf("over HTTP: %d %s %v", a.code, a.raw, err)
		}
	})
	eventually(t, wholeWithin, "the install is under way", func() bool { return len(x.Requests()) > 0 })
	for _, s := range sessions {
		wait.Go(func() {
			// Who came too late for it would read that it is installed already.
			if out := s.mustInstallTool("", map[string]any{"package": "sbx-slow"}); out["status"] != "installed" {
				t.Errorf("over MCP (%s): %v", s.transport, out)
			}
		})
	}
	wait.Wait()
}

// A client that has asked as often as it may does not begin anew: not at another handler of the pool that has a limit of its own,
// nor after a reload that changes the limit, or the pool itself.
func TestInstallsOfAClientAreCountedOnce(t *testing.T) {
	t.Parallel()
	host := index.Unreachable()
	directive := func(rate int) string { return installing("http://"+host+"/simple", fmt.Sprintf("rate %d 1h", rate)) }
	other := func(rate int) string {
		return "handle_path /other/* {\n python_sandbox {\n" + directive(rate) + "\n}\n}"
	}
	c := startCaddy(t, caddyOptions{directive: directive(2), site: other(3)})
	ask := func(path string, want int) {
		t.Helper()
		// What is blocked counts, and needs no index.
		resp, err := c.client.Post(c.url+path+"/pip_install", "application/json", strings.NewReader(`{"package": "os"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	ask("", http.StatusOK)
	ask("", http.StatusOK)
	ask("", http.StatusTooManyRequests)
	ask("/other", http.StatusOK) // the third, of three
	ask("/other", http.StatusTooManyRequests)

	c.reload(directive(2)+"\n docs off", other(3))
	ask("", http.StatusTooManyRequests)
	ask("/other", http.StatusTooManyRequests)
	c.reload(directive(3), other(2))
	ask("", http.StatusTooManyRequests)
	c.reload(strings.Replace(directive(3), "idle 2", "idle 1", 1), "")
	ask("", http.StatusTooManyRequests)
	c.reload(strings.Replace(directive(4), "idle 2", "idle 1", 1), "")
	ask("", http.StatusOK)
	ask("", http.StatusTooManyRequests)
}

// A configuration that is gone keeps no connection to its index.
func TestReloadClosesConnectionsToTheIndex(t *testing.T) {
	t.Parallel()
	x := newIndex(t, twoModules("sbx-one", "1.0"))
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	c.mustInstall("sbx-one", "")
	if n := connections(t, x.Host()); n == 0 {
		t.Fatal("there is no connection to the index, which is kept for the next install")
	}
	begin := time.Now()
	c.reload(installing(x.URL(), oftenEnough, "trust sbx-one"), "")
	eventually(t, wholeWithin, "no connection to the index", func() bool { return connections(t, x.Host()) == 0 })
	if took := time.Since(begin); took > 25*time.Second { // an idle one ends by itself after 30 s
		t.Errorf("after %s", took)
	}
}

// connections counts what is established with a server on 127.0.0.1, as its clients see it.
func connections(t *testing.T, host string) int { return sockets(t, host, 2, "01") }
