package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// foreignPage tries what a page of another site can do without asking the server first: requests of simple types, a form, an
// event stream, an image, and a window. %s is the sandbox.
const foreignPage = `<!doctype html><title>foreign</title><form id=f method=post enctype=text/plain target=frame><input name='{"code": "print(1)", "x": "' value='"}'></form>
<iframe name=frame></iframe><script>
const target = %q, code = JSON.stringify({code: "print(1)"})
const call = JSON.stringify({jsonrpc: "2.0", id: 1, method: "tools/call", params: {name: "execute_python", arguments: {code: "print(1)"}}})
const tries = []
for (const path of ["/execute", "/mcp", "/mcp/message?sessionId=x", "/pip_install"]) {
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json"]) {
    for (const mode of ["no-cors", "cors"]) {
      const headers = {"Content-Type": type}
      if (mode === "cors") headers.Accept = "application/json, text/event-stream"
      tries.push(fetch(target + path, {method: "POST", mode, headers, body: path.startsWith("/mcp") ? call : code, credentials: "include"})
        .then(r => r.type === "opaque" ? "" : "read " + path + " " + r.status, () => ""))
    }
  }
  navigator.sendBeacon(target + path, path.startsWith("/mcp") ? call : code)
}
tries.push(new Promise(done => {
  const stream = new EventSource(target + "/mcp/sse")
  stream.addEventListener("endpoint", e => done("stream " + e.data))
  stream.onerror = () => { stream.close(); done("") }
}))
tries.push(fetch(target + "/mcp/sse", {mode: "no-cors"}).then(r => r.type === "opaque" ? "" : "read stream", () => ""))
document.getElementById("f").action = target + "/execute"
tries.push(new Promise(done => { document.querySelector("iframe").onload = () => done(""); document.getElementById("f").submit() }))
Promise.all(tries).then(results => { window.results = results.filter(Boolean); window.finished = true })
</script>`

// A page of another site, here another port, in a real browser runs nothing and reads nothing.
func TestForeignPageRunsNothing(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{site: withMetrics})
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, foreignPage, c.url)
	}))
	t.Cleanup(page.Close)
	b := startBrowser(t, strings.TrimPrefix(page.URL, "http://"))
	b.do("opening the page", chromedp.Navigate(page.URL))
	b.until("window.finished === true")
	read, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string]("window.results"))
	if err != nil || len(read) > 0 {
		t.Errorf("the page read %q, %v", read, err)
	}
	for _, status := range pool.Statuses {
		if n := c.metric(fmt.Sprintf("sandbox_executions_total{status=%q}", status)); n > 0 {
			t.Errorf("the page got %v programs run, with status %s", n, status)
		}
	}
	for _, status := range install.Statuses {
		if n := c.metric(fmt.Sprintf("sandbox_package_installs_total{status=%q}", status)); n > 0 {
			t.Errorf("the page asked for %v installs, with status %s", n, status)
		}
	}
	if !b.asked(c.url+"/execute") || !b.asked(c.url+"/mcp/sse") {
		t.Error("the page did not try")
	}
	if n := c.metric(`sandbox_errors_total{type="cross_origin"}`); n < 10 {
		t.Errorf("%v requests were refused as another site's", n)
	}
	c.mustPrint("print(1)", "1\n")
}
