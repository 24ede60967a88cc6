package tests

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// check makes the install and looks at everything that can be seen of it.
func (r installRow) check(t *testing.T, c *caddy, x *index.Server) {
	t.Helper()
	fetched := 0
	if x != nil {
		fetched = x.WheelDownloads()
	}
	_, before := c.packages()
	series := `sandbox_package_installs_total{status="` + r.status + `"}`
	counted := c.metric(series)
	a := c.install(r.pkg, r.version)
	if a.Status != r.status {
		t.Fatalf("not %s: %s", r.status, a.raw)
	}
	success := r.status == "installed" || r.status == "already_installed"
	switch {
	case a.Success != success:
		t.Errorf("success: %s", a.raw)
	case success && (a.Version == nil || *a.Version != r.installed):
		t.Errorf("installed_version is not %s: %s", r.installed, a.raw)
	case !success && (a.Version != nil || !strings.Contains(a.raw, `"installed_version":null`) || len(a.Packages) > 0):
		t.Errorf("it says that something was installed: %s", a.raw)
	case a.Seconds == nil || *a.Seconds < 0 || *a.Seconds > a.took.Seconds():
		t.Errorf("installation_time: %s after %s", a.raw, a.took)
	}
	for _, word := range r.says {
		said := func(word string) bool { return strings.Contains(strings.ToLower(a.Message), strings.ToLower(word)) }
		if !slices.ContainsFunc(strings.Split(word, "|"), said) {
			t.Errorf("the message has no %q: %s", word, a.Message)
		}
	}
	for _, inside := range []string{".go:", "Traceback", "goroutine", "/staging/", c.dir, "&packages.", "%!"} {
		if strings.Contains(a.Message, inside) {
			t.Errorf("the message shows our inside: %s", a.Message)
		}
	}
	if !strings.HasSuffix(a.Message, ".") && !strings.HasSuffix(a.Message, "?") {
		t.Errorf("not a sentence: %q", a.Message)
	}
	if r.status == "installed" {
		got := []string{}
		for _, p := range a.Packages {
			got = append(got, p.Name+" "+p.Version)
		}
		want := slices.Clone(r.more)
		if !r.again {
			want = append(want, index.Canonical(r.pkg)+" "+r.installed)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("packages are %q, not %q", got, want)
		}
		for _, p := range want {
			if !slices.Contains(c.installed(), p) {
				t.Errorf("GET /packages lacks %s", p)
			}
		}
	} else if _, after := c.packages(); after != before {
		t.Errorf("GET /packages was %s and is %s", before, after)
	}
	if r.unfetched && !fetchesTwice() && x.WheelDownloads() != fetched {
		t.Errorf("wheels were fetched: %q", x.Requests()[len(x.Requests())-5:])
	}
	if now := c.metric(series); now != counted+1 {
		t.Errorf("%s went from %v to %v", series, counted, now)
	}
	if r.status == "blocked" {
		line := c.logLine("package blocked", func(e map[string]any) bool {
			said, _ := e["package"].(string)
			return strings.HasPrefix(said, index.Canonical(r.pkg)) && e["rule"] == r.rule
		})
		if line == nil || line["level"] != "warn" {
			t.Errorf("no warning in the log that the rule %s blocked %s: %v", r.rule, r.pkg, line)
		}
	}
	code := "print('right')"
	if r.then != "" {
		code = r.then
	}
	c.mustPrint(code, "right\n")
}

// Each way in which an install ends.
func TestInstallStatuses(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	honest(x)
	broken(x)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), statusSettings), site: withMetrics})
	for _, r := range installRows {
		t.Run(r.name, func(t *testing.T) { r.check(t, c.in(t), x) })
	}
	tryMalformed(t, c, x)
	c.noneIsLeft()
	if _, err := os.Lstat("/tmp/sbx_absolute.py"); err == nil {
		t.Error("a wheel has written to an absolute path")
	}
}

const statusSettings = oftenEnough + "\n block sbx-evil\n max_installed 100MiB\n max_download 20MiB"

// An index may have pages of HTML only, which say less.
func TestInstallStatusesWithHTML(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.SetFormats(false, true)
	honest(x)
	broken(x)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), statusSettings), site: withMetrics})
	for _, name := range []string{
		"a chain", "the latest of a range, no pre-release", "a newer Python", "no such package", "no such version", "withdrawn", "withdrawn, as a dependency",
		"source only", "another system", "announced as huge", "huge without saying so", "another file than announced", "sent elsewhere", "without a hash",
	} {
		r := installRows[slices.IndexFunc(installRows, func(r installRow) bool { return r.name == name })]
		t.Run(r.name, func(t *testing.T) { r.check(t, c.in(t), x) })
	}
}

// tryMalformed sends what is no name or no version. None of it reaches the index.
func tryMalformed(t *testing.T, c *caddy, x *index.Server) {
	t.Helper()
	_, before := c.packages()
	asked := len(x.Requests())
	for _, r := range []struct {
		body     string
		location string
		says     string
	}{
		{`{"package": ""}`, "body.package", "empty"},
		{`{"package": " "}`, "body.package", "empty"},
		{`{"package": "-r /etc/passwd"}`, "body.package", "option"},
		{`{"package": "--index-url=http://127.0.0.1/"}`, "body.package", "option"},
		{`{"package": "sbx-one --pre"}`, "body.package", "option"},
		{`{"package": "http://127.0.0.1/x.whl"}`, "body.package", "URL"},
		{`{"package": "git+https://127.0.0.1/x"}`, "body.package", "URL"},
		{`{"package": "sbx-one @ http://127.0.0.1/x.whl"}`, "body.package", "URL"},
		{`{"package": "sbx-one@1.0"}`, "body.package", "version"},
		{`{"package": "./sbx"}`, "body.package", "path"},
		{`{"package": "../../etc/passwd"}`, "body.package", "path"},
		{`{"package": "/etc/passwd"}`, "body.package", "path"},
		{`{"package": "sbx_one-1.0-py3-none-any.whl"}`, "body.package", "file"},
		{`{"package": "sbx-one\n--pre"}`, "body.package", "line"},
		{`{"package": "sbx-one\u0000"}`, "body.package", "control"},
		{`{"package": "sbx-one sbx-many"}`, "body.package", "request of its own"},
		{`{"package": "[more]"}`, "body.package", "name"},
		{`{"package": "sbx-one[]"}`, "body.package", "extra"},
		{`{"package": "sbx-one[a b]"}`, "body.package", "extra"},
		{`{"package": "sbx-one; python_version > '3'"}`, "body.package", "marker"},
		{`{"package": "sbx-\u043ene"}`, "body.package", "ASCII"},
		{`{"package": "` + strings.Repeat("a", 1000) + `"}`, "body.package", "200"},
		{`{"package": 1}`, "body.package", "string"},
		{`{"package": null}`, "body.package", ""},
		{`{"package": ["sbx-one"]}`, "body.package", "string"},
		{`{}`, "body.package", ""},
		{`{"package": "sbx-one", "version": "newest"}`, "body.version", "version"},
		{`{"package": "sbx-one", "version": "=="}`, "body.version", ""},
		{`{"package": "sbx-one", "version": "1.0 --pre"}`, "body.version", ""},
		{`{"package": "sbx-one", "version": "1.0; os_name == 'posix'"}`, "body.version", ""},
		{`{"package": "sbx-one", "version": "@ http://127.0.0.1/x.whl"}`, "body.version", ""},
		{`{"package": "sbx-one", "version": "1.0\n"}`, "body.version", "line"},
		{`{"package": "sbx-one", "version": 1.0}`, "body.version", "string"},
		{`{"package": "sbx-one", "version": "` + strings.Repeat("1", 400) + `"}`, "body.version", "200"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/pip_install", strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.do(req)
		if err != nil || a.code != 422 || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %v", r.body, a.code, a.raw, err)
			continue
		}
		if !strings.Contains(a.raw, `"location":"`+r.location+`"`) || !strings.Contains(a.Detail, r.says) {
			t.Errorf("%s: the problem has not the location %s and the word %q: %s", r.body, r.location, r.says, a.raw)
		}
	}
	if _, after := c.packages(); after != before {
		t.Errorf("GET /packages was %s and is %s", before, after)
	}
	if now := x.Requests(); len(now) != asked {
		t.Errorf("the index was asked for %q", now[asked:])
	}
}

// noneIsLeft waits until Caddy has no child but its templates, and the directory of packages nothing but the current set.
func (c *caddy) noneIsLeft() {
	c.Helper()
	h, err := c.health()
	if err != nil {
		c.Fatal(err)
	}
	eventually(c, wholeWithin, "no process but the templates", func() bool { return len(children(c, c.pid())) == h.Templates.Target })
	c.storeIsClean(c.dataDir())
}

// An index that does not answer, or not to the end, holds an install up for no longer than install_timeout.
func TestInstallFromSlowIndex(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	slow := index.Wheel{Name: "sbx-slow", Version: "1.0"}.File()
	slow.Delay = time.Hour
	x.Add(index.Project{Name: "sbx-slow", Files: []index.File{slow}})
	x.SetPages(time.Hour, 0)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough, "install_timeout 3s"), site: withMetrics})
	installRow{pkg: "sbx-one", status: "timeout", says: []string{"sbx-one", "3s", "nothing has changed", "install_timeout"}}.check(t, c, x)
	// Who goes away takes the install along, and the next one gets its turn.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if a, err := c.tryInstall(ctx, "sbx-many", ""); err == nil {
			t.Errorf("answered: %s", a.raw)
		}
	}()
	eventually(t, wholeWithin, "the index is asked", func() bool { return slices.Contains(x.Requests(), "GET /simple/sbx-many/") })
	cancel()
	<-gone
	x.SetPages(0, 0)
	installRow{pkg: "sbx-slow", status: "timeout", says: []string{"sbx-slow", "3s", "nothing has changed"}}.check(t, c, x)
	x.SetPages(0, http.StatusServiceUnavailable)
	installRow{pkg: "sbx-other", status: "failed", says: []string{"answers 503", "try again"}}.check(t, c, x)
	x.SetPages(0, 0)
	eventually(t, time.Minute, "an install from the index that is well again", func() bool { return c.install("sbx-one", "").Success })
	c.mustPrint(has("sbx_one 1.0"), "right\n")
	c.noneIsLeft()
}

// An index that is not there; and how often it may be asked for.
func TestInstallFromNoIndex(t *testing.T) {
	t.Parallel()
	host := index.Unreachable()
	c := startCaddy(t, caddyOptions{directive: installing("http://"+host+"/simple", "rate 3 1h"), site: withMetrics})
	for range 3 {
		installRow{pkg: "sbx-one", status: "failed", says: []string{host, "refuses connections", "try again"}}.check(t, c, nil)
	}
	a, err := c.tryInstall(t.Context(), "sbx-one", "")
	if err != nil || a.code != 429 || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d %s %v", a.code, a.raw, err)
	}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 3500 || seconds > 3600 {
		t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
	}
	if !strings.Contains(a.Detail, "at most 3 within 1h") || !strings.Contains(a.Detail, "try again in") {
		t.Errorf("detail: %q", a.Detail)
	}
	c.mustPrint("print('right')", "right\n")
}
