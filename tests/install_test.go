package tests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// newIndex starts a package index that ends with the test.
func newIndex(t testing.TB, wheels ...index.Wheel) *index.Server {
	t.Helper()
	x := index.New()
	t.Cleanup(x.Close)
	x.AddWheels(wheels...)
	return x
}

// in is the same server for a part of the test.
func (c *caddy) in(t testing.TB) *caddy {
	part := *c
	part.TB = t
	return &part
}

// withMetrics is a site with the series at /metrics.
const withMetrics = "handle /metrics {\n metrics\n }"

// installing is a directive for a small server that installs from an index; more are words of packages.
func installing(indexURL string, more ...string) string {
	return installingBy(quickPython(), indexURL, more...)
}

// installingBy is the same with an interpreter; "" is the default one.
func installingBy(python, indexURL string, more ...string) string {
	if python != "" {
		python = "python " + python + "\n"
	}
	return python + "workers {\n idle 2\n templates 1\n }\n packages {\n index " + indexURL + "\n" + strings.Join(more, "\n") + "\n }"
}

// quickPython is the interpreter of the system where it has pip, or "": pip takes most of the time of an install, and what
// distributions build runs it in half the time that others do.
var quickPython = sync.OnceValue(func() string {
	const path = "/usr/bin/python3"
	if exec.Command(path, "-I", "-c", "import sys, pip; sys.exit(sys.version_info < (3, 10))").Run() != nil {
		return ""
	}
	return path
})

// fetchesTwice says that the pip of installing's interpreter needs each wheel to know what it needs: it is older than 23.1, or
// the one that ensurepip brings.
var fetchesTwice = sync.OnceValue(func() bool {
	out, err := exec.Command(cmp.Or(quickPython(), "python3"), "-I", "-c", "import pip; print(*pip.__version__.split('.')[:2])").Output()
	var major, minor int
	if err == nil {
		_, err = fmt.Sscan(string(out), &major, &minor)
	}
	return err != nil || major < 23 || major == 23 && minor < 1
})

// oftenEnough lifts the limit of installs for tests that make many.
const oftenEnough = "rate 1000 1m"

// packageVersion is a package as answers name it.
type packageVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// installAnswer is a response of POST /pip_install, result or problem.
type installAnswer struct {
	answer
	Message  string           `json:"message"`
	Version  *string          `json:"installed_version"`
	Seconds  *float64         `json:"installation_time"`
	Packages []packageVersion `json:"packages"`
	Errors   []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// tryInstall posts a request to install; without a version when that is "".
func (c *caddy) tryInstall(ctx context.Context, name, version string) (installAnswer, error) {
	request := map[string]any{"package": name}
	if version != "" {
		request["version"] = version
	}
	body, err := json.Marshal(request)
	if err != nil {
		return installAnswer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/pip_install", bytes.NewReader(body))
	if err != nil {
		return installAnswer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	var a installAnswer
	if a.answer, err = c.do(req); err != nil || !strings.Contains(a.header.Get("Content-Type"), "json") {
		return a, err
	}
	return a, json.Unmarshal([]byte(a.raw), &a)
}

// install fails the test unless the answer is a result.
func (c *caddy) install(name, version string) installAnswer {
	c.Helper()
	a, err := c.tryInstall(context.Background(), name, version)
	if err != nil || a.code != 200 {
		c.Fatalf("installing %s %s: %d %s %v", name, version, a.code, a.raw, err)
	}
	return a
}

// mustInstall fails the test unless the package is installed.
func (c *caddy) mustInstall(name, version string) installAnswer {
	c.Helper()
	a := c.install(name, version)
	if a.Status != "installed" {
		c.Fatalf("installing %s %s: %s", name, version, a.raw)
	}
	return a
}

// packageSet is GET /packages.
type packageSet struct {
	Generation int `json:"generation"`
	Packages   []struct {
		packageVersion
		Source     string `json:"source"`
		Generation int    `json:"generation"`
	} `json:"packages"`
}

// packages returns what is listed, also as it came.
func (c *caddy) packages() (packageSet, string) {
	c.Helper()
	resp, err := c.client.Get(c.url + "/packages")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	var set packageSet
	if err == nil {
		err = json.Unmarshal(raw, &set)
	}
	if err != nil || resp.StatusCode != 200 {
		c.Fatalf("GET /packages: %d %s %v", resp.StatusCode, raw, err)
	}
	return set, string(raw)
}

// installed returns the packages that were installed here, as "name version", in their order.
func (c *caddy) installed() []string {
	c.Helper()
	set, _ := c.packages()
	list := []string{}
	for _, p := range set.Packages {
		if p.Source == "installed" {
			list = append(list, p.Name+" "+p.Version)
		}
	}
	return list
}

// mustHave fails the test unless exactly these packages, as "name version", are installed.
func (c *caddy) mustHave(want ...string) {
	c.Helper()
	if got := c.installed(); !slices.Equal(got, want) {
		c.Fatalf("installed are %q, not %q", got, want)
	}
}

// metric returns the value of a series, such as `sandbox_queue_depth`. The site must have metrics at /metrics.
func (c *caddy) metric(series string) float64 {
	c.Helper()
	resp, err := c.client.Get(c.url + "/metrics")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(text)
	if line == nil {
		c.Fatalf("there is no series %s", series)
	}
	value, err := strconv.ParseFloat(string(line[1]), 64)
	if err != nil {
		c.Fatal(err)
	}
	return value
}

// logLine returns a JSON line of the log with this message for which cond holds.
func (c *caddy) logLine(message string, cond func(map[string]any) bool) map[string]any {
	for line := range strings.Lines(c.log.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message && cond(entry) {
			return entry
		}
	}
	return nil
}

// versionsOf is a program that prints each module with its version on a line.
func versionsOf(modules ...string) string {
	return fmt.Sprintf("import importlib\nfor m in %q.split(): print(m, importlib.import_module(m).__version__)", strings.Join(modules, " "))
}

var dataDirWord = regexp.MustCompile(`data_dir (\S+)`)

// dataDir is where the server keeps packages: one directory for each kind of interpreter.
func (c *caddy) dataDir() string {
	c.Helper()
	if said := dataDirWord.FindStringSubmatch(c.o.directive); said != nil {
		return said[1]
	}
	return filepath.Join(c.o.home, ".local", "share", "caddy", "python_sandbox")
}

// stores returns the stores in a data_dir. Most have one.
func stores(t testing.TB, dataDir string) []string {
	t.Helper()
	found, err := os.ReadDir(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, entry := range found {
		if !entry.IsDir() {
			t.Errorf("%s is no store", entry.Name())
		}
		dirs = append(dirs, filepath.Join(dataDir, entry.Name()))
	}
	return dirs
}

// storeIsClean fails the test unless nothing but the current generation, and what it is made of, is in the stores. What was
// used a moment ago may take one to go.
func (c *caddy) storeIsClean(dataDir string) {
	c.Helper()
	var left []string
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		left = nil
		for _, dir := range stores(c, dataDir) {
			left = append(left, leftovers(c, dir)...)
		}
		if len(left) == 0 {
			return
		}
		if late(wholeWithin, begin) {
			c.Fatalf("left in %s: %q", dataDir, left)
		}
	}
}

// leftovers lists what is in a store beside the current generation.
func leftovers(t testing.TB, dir string) []string {
	t.Helper()
	var left []string
	current, err := os.Readlink(filepath.Join(dir, "current"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var named struct {
		Packages []struct {
			Name    string `json:"name"`
			Version string `json:"version"`
			SHA256  string `json:"sha256"`
		} `json:"packages"`
	}
	if current != "" {
		text, err := os.ReadFile(filepath.Join(dir, current, "manifest.json"))
		if err == nil {
			err = json.Unmarshal(text, &named)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wanted := map[string]bool{"lock": true, "store": true, "generations": true, "staging": true, "current": true}
	for _, p := range named.Packages {
		wanted[filepath.Join("store", p.Name+"-"+p.Version+"-"+p.SHA256[:16])] = true
	}
	wanted[current] = true
	for _, pattern := range []string{"*", "store/*", "generations/*", "staging/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if name := strings.TrimPrefix(path, dir+"/"); !wanted[name] {
				left = append(left, name)
			} else {
				delete(wanted, name)
			}
		}
	}
	for name := range wanted {
		if name != "current" && name != "" {
			left = append(left, "no "+name)
		}
	}
	return left
}
