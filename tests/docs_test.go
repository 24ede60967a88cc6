package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, clientPython, "clients/openapi.py", c.url+"/openapi.json").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%v\n%s", err, tail(string(out), 4000))
	}
}

// The patterns of the document are JavaScript's, as JSON Schema wants it: those who read it have other engines than the server.
func TestOpenAPIPatternsAreECMAScript(t *testing.T) {
	t.Parallel()
	needNodeClients(t)
	c := startCaddy(t, caddyOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := node(ctx, t.TempDir(), "--input-type=module", "-e", `
		const document = await (await fetch(process.argv[1])).json()
		const { properties } = document.components.schemas.InstallInput
		const matches = (field, text) => new RegExp(properties[field].pattern, 'u').test(text)
		for (const [field, right, wrong] of [
			['package', ['requests', 'requests[socks, security]'], ['', '-r x', 'a b', 'https://a/b', 'a\n']],
			['version', ['', 'latest', '2.31.0', '1.0rc1.post2.dev3+cu118', '1.*', '>=2,<3', '~=1.4'], ['^1', '~=1', '1.0\n', 'abc', '>1.*']],
		]) {
			for (const text of right) if (!matches(field, text)) console.log(field + ' does not match ' + JSON.stringify(text))
			for (const text of wrong) if (matches(field, text)) console.log(field + ' matches ' + JSON.stringify(text))
		}
		console.log('ok')`, c.url+"/openapi.json").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%v\n%s", err, tail(string(out), 3000))
	}
}

// Each example of /execute is answered as the document shows.
func TestOpenAPIExamplesAreTrue(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{})
	type content map[string]struct {
		Examples map[string]struct{ Value json.RawMessage }
	}
	var document struct {
		Paths map[string]struct {
			Post struct {
				RequestBody struct{ Content content }
				Responses   map[string]struct{ Content content }
			}
		}
	}
	resp, err := c.client.Get(c.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	execute := document.Paths["/execute"].Post
	answers := execute.Responses["200"].Content["application/json"].Examples
	for name, request := range execute.RequestBody.Content["application/json"].Examples {
		resp, err := c.client.Post(c.url+"/execute", "application/json", bytes.NewReader(request.Value))
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		err = json.NewDecoder(resp.Body).Decode(&got)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(answers[name].Value, &want); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"stdout", "stderr", "exit_code", "success", "status", "truncated", "hint"} {
			if got[field] != want[field] {
				t.Errorf("%s: %s is %q, and the document says %q", name, field, got[field], want[field])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: fields are %v, and the document says %v", name, got, want)
		}
	}
	if len(answers) == 0 {
		t.Error("there are no examples")
	}
}

// screens are what /docs must be usable on.
var screens = []struct {
	name          string
	width, height int64
	options       []chromedp.EmulateViewportOption
}{
	{"desktop", 1280, 900, nil},
	{"phone", 390, 844, []chromedp.EmulateViewportOption{chromedp.EmulateMobile, chromedp.EmulatePortrait, chromedp.EmulateTouch, chromedp.EmulateScale(2)}},
}

// "Try it out" runs the example wherever the directive stands, on a large screen and on a small one.
func TestDocsTryItOut(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{site: "handle_path /sandbox/* {\n\t\tpython_sandbox\n\t}"})
	target, err := url.Parse(c.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Path = strings.TrimPrefix(r.Out.URL.Path, "/apps/python")
		r.SetURL(target)
		r.SetXForwarded()
	}})
	t.Cleanup(proxy.Close)
	for _, place := range []struct{ name, url string }{
		{"root", c.url},
		{"prefix", c.url + "/sandbox"},
		{"proxy", proxy.URL + "/apps/python"},
	} {
		t.Run(place.name, func(t *testing.T) {
			_, address, _ := strings.Cut(place.url, "://")
			host, _, _ := strings.Cut(address, "/")
			b := startBrowser(t, host)
			for _, screen := range screens {
				b.do("opening /docs", chromedp.EmulateViewport(screen.width, screen.height, screen.options...), chromedp.Navigate(place.url+"/docs/"))
				tryItOut(b)
				if width, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); err != nil || width > screen.width {
					t.Errorf("%s: the page is %d pixels wide (%v)", screen.name, width, err)
				}
				if place.name == "root" {
					keepScreenshot(b, screen.name)
				}
			}
			b.checkQuiet()
			if !b.asked(place.url + "/execute") {
				t.Errorf("%s/execute was not asked", place.url)
			}
		})
	}
}

// tryItOut does what a person does with the operation execute_python.
func tryItOut(b *browser) {
	b.Helper()
	const operation = "#operations-execution-execute_python "
	b.do("trying it out",
		chromedp.Click(chromedp.CSS(operation+".opblock-summary-control")),
		chromedp.Click(chromedp.CSS(operation+".try-out__btn")),
		chromedp.Click(chromedp.CSS(operation+"button.execute")))
	b.until("document.querySelector('" + operation + ".live-responses-table')?.innerText.includes('\"stdout\": \"Hello, World!')")
}

// keepScreenshot leaves a picture of the tab in the temporary directory, and in docs/screenshots when asked to by
// UPDATE_SCREENSHOTS=1.
func keepScreenshot(b *browser, name string) {
	b.Helper()
	dir := b.TempDir()
	if os.Getenv("UPDATE_SCREENSHOTS") == "1" {
		dir = "../docs/screenshots"
	}
	b.do("scrolling to the answer", chromedp.Evaluate[chromedp.Void](
		"document.querySelector('.live-responses-table .highlight-code').scrollIntoView({behavior: 'instant', block: 'end'})"))
	b.until("document.getAnimations().length === 0")
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.Fatal(err)
	}
	if len(picture) > 300_000 {
		b.Errorf("the screenshot of the %s has %d bytes", name, len(picture))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // to be read
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docs-"+name+".png"), picture, 0o644); err != nil { // to be read
		b.Fatal(err)
	}
}
