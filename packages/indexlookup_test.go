package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

func TestIndexLookupReadsBothKindsOfPage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		json, html bool
	}{{"JSON", true, false}, {"HTML", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			s.SetFormats(c.json, c.html)
			wheel := index.Wheel{Name: "Some.Thing", Version: "1.0", RequiresPython: ">=3.9, <4"}.File()
			yanked := index.Wheel{Name: "some_thing", Version: "2.0+local_1"}.File()
			yanked.Yanked, yanked.YankedReason, yanked.NoMetadata, yanked.NoHash = true, "wrong & bad", true, true
			sdist := index.Sdist{Name: "some-thing", Version: "3.0rc1"}.File()
			sdist.URL = "https://files.example/a%20b/some-thing-3.0rc1.tar.gz#egg=x"
			s.Add(index.Project{Name: "some-thing", Files: []index.File{
				wheel, yanked, sdist, {Name: "other-1.0.tar.gz"}, {Name: "some_thing-4.0.exe"}, {Name: "some_thing-5.0.whl"}, {Name: "thing-1-py3-none-any.whl"},
			}})
			x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
			page, err := x.Lookup(t.Context(), "Some_Thing")
			if err != nil || !page.Found || len(page.Files) != 3 {
				t.Fatalf("got %+v, %v", page, err)
			}
			size := func(f index.File) int64 {
				if !c.json {
					return -1
				}
				return int64(len(f.Content))
			}
			for i, want := range []File{
				{Name: "Some.Thing-1.0-py3-none-any.whl", URL: s.FileURL(wheel.Name), Version: "1.0", Wheel: true, RequiresPython: ">=3.9, <4", Size: size(wheel), Metadata: true},
				{Name: "some_thing-2.0+local_1-py3-none-any.whl", URL: s.FileURL(yanked.Name), Version: "2.0+local-1", Wheel: true, Yanked: true, YankedReason: "wrong & bad", Size: size(yanked)},
				{Name: "some-thing-3.0rc1.tar.gz", URL: "https://files.example/a%20b/some-thing-3.0rc1.tar.gz", Version: "3.0rc1", Sdist: true, Size: size(sdist)},
			} {
				got := page.Files[i]
				if hasHash := len(got.SHA256) == 64; hasHash == (i == 1) {
					t.Errorf("SHA-256 of %s is %q", got.Name, got.SHA256)
				}
				if got.SHA256 = ""; got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			}
			if got, want := page.Hosts(), []string{s.Host(), "files.example:443"}; !slices.Equal(got, want) {
				t.Errorf("hosts are %q, want %q", got, want)
			}
			if got, want := x.Hosts(), []string{s.Host()}; !slices.Equal(got, want) {
				t.Errorf("hosts are %q, want %q", got, want)
			}
			for range 3 {
				if _, err := x.Lookup(t.Context(), "some-thing"); err != nil {
					t.Error(err)
				}
			}
			if got := s.Requests(); len(got) != 1 {
				t.Errorf("pages are not kept: %q", got)
			}
		})
	}
}

func TestIndexReadsOddPages(t *testing.T) {
	t.Parallel()
	const json, html = "application/vnd.pypi.simple.v1+json", "text/html"
	sum := strings.Repeat("Ab", 32)
	for _, c := range []struct {
		name, contentType, body string
		want                    string // a line for each file: name, URL, hash, size, Yanked and Metadata; or the error
	}{
		{"no files", json, `{"files":[]}`, ""},
		{"wrong types", json, `{"files":[{"url":"a-1.tar.gz","hashes":7,"yanked":{},"size":"x","requires-python":1,"core-metadata":7},{"url":"b-1.zip","hashes":{"sha256":"zz"},"size":null,"yanked":null}]}`,
			"a-1.tar.gz http://x.example/p/a-1.tar.gz  -1 false false\nb-1.zip http://x.example/p/b-1.zip  -1 false false\n"},
		{"old metadata, and a hash in capitals", json, `{"files":[{"url":"/a-1.whl","hashes":{"sha256":"` + sum + `"},"dist-info-metadata":true,"core-metadata":null,"size":0,"yanked":""}]}`,
			"a-1.whl http://x.example/a-1.whl " + strings.ToLower(sum) + " 0 false true\n"},
		{"metadata that is not there", json, `{"files":[{"url":"a-1.whl","dist-info-metadata":{"sha256":"x"},"core-metadata":false}]}`, "a-1.whl http://x.example/p/a-1.whl  -1 false false\n"},
		{"no JSON", json, `{"files":[`, "as JSON: unexpected EOF"},
		{"base, accounts and schemes", html, `<BASE href="https://y.example/q/"><base href="https://z.example/"><a href="a-1.zip#sha256=` + sum + `">x</a><a href="ftp://y.example/a-2.zip"><a href='//u:p@w.example/a-3.zip' data-yanked>` +
			`<a href="javascript:x"><a><a href="%zz"><a href=" a-4.zip " data-dist-info-metadata="true">`,
			"a-1.zip https://y.example/q/a-1.zip " + strings.ToLower(sum) + " -1 false false\na-3.zip https://w.example/a-3.zip  -1 true false\na-4.zip https://y.example/q/a-4.zip  -1 false true\n"},
		{"no HTML at all", html, "\x00\xff<<<", ""},
		{"one token without end", html, "<a href=" + strings.Repeat("x", 2<<20), "as HTML: max buffer exceeded"},
		{"charset", html + "; charset=utf-8", `<a href="a-1.zip?x=1&amp;y=2">`, "a-1.zip http://x.example/p/a-1.zip?x=1&y=2  -1 false false\n"},
		{"another type", "text/plain", "x", "unknown"},
		{"no type", "", "x", "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			base, err := parseIndexURL("index-url", "http://x.example/p/")
			if err != nil {
				t.Fatal(err)
			}
			files, known, err := parsePage(base, c.contentType, strings.NewReader(c.body))
			var got strings.Builder
			for _, f := range files {
				_, _ = got.WriteString(strings.Join([]string{f.Name, f.URL, f.SHA256, fmt.Sprint(f.Size), fmt.Sprint(f.Yanked), fmt.Sprint(f.Metadata)}, " ") + "\n")
			}
			switch {
			case err != nil:
				got.WriteString(err.Error())
			case !known:
				got.WriteString("unknown")
			}
			if got.String() != c.want {
				t.Errorf("got  %q\nwant %q", got.String(), c.want)
			}
		})
	}
}

func TestIndexLookupFailures(t *testing.T) {
	t.Parallel()
	elsewhere := newTestServer(t)
	elsewhere.AddWheels(index.Wheel{Name: "thing", Version: "9"})
	odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain/thing/":
			w.Header().Set("Content-Type", "text/plain")
		case "/long/thing/":
			w.Header().Set("Content-Type", "text/html")
			for {
				if _, err := io.WriteString(w, "<a href=x></a>"); err != nil {
					return
				}
			}
		case "/stalls/thing/":
			w.Header().Set("Content-Type", "text/html")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/cut/thing/":
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", "100")
		case "/elsewhere/thing/":
			http.Redirect(w, r, elsewhere.URL()+"thing/", http.StatusFound)
		case "/loop/thing/":
			http.Redirect(w, r, "/loop/thing/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(odd.Close)
	short := 200 * time.Millisecond
	for _, c := range []struct {
		name    string
		config  func(*index.Server) PipConfig
		reason  string // of the *IndexError that is wanted
		timeout bool
		host    bool // a *HostError is wanted
		files   int
	}{
		{"no such project", func(s *index.Server) PipConfig { return PipConfig{IndexURL: s.URL()} }, "", false, false, 0},
		{"slow", func(s *index.Server) PipConfig {
			s.SetPages(time.Hour, 0)
			return PipConfig{IndexURL: s.URL(), Timeout: short}
		}, "did not answer in time", true, false, 0},
		{"stalls in the page", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/stalls", Timeout: short} }, "did not answer in time", true, false, 0},
		{"down", func(s *index.Server) PipConfig { s.SetDown(true); return PipConfig{IndexURL: s.URL()} }, "closed the connection", false, false, 0},
		{"not there", func(*index.Server) PipConfig { return PipConfig{IndexURL: "http://" + index.Unreachable() + "/simple"} }, "refuses connections", false, false, 0},
		{"broken", func(s *index.Server) PipConfig { s.SetPages(0, 503); return PipConfig{IndexURL: s.URL()} }, "answers 503", false, false, 0},
		{"account", func(s *index.Server) PipConfig {
			s.SetAccount("me", "secret")
			return PipConfig{IndexURL: withAccount(s.URL(), "me:wrongword")}
		}, "refuses this account (401", false, false, 0},
		{"no page", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/plain"} }, "text/plain", false, false, 0},
		{"long", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/long"} }, "more than 1.0 MiB", false, false, 0},
		{"cut", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/cut"} }, "closed the connection", false, false, 0},
		{"loop", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/loop"} }, "redirects too often", false, false, 0},
		{"redirect to another host", func(*index.Server) PipConfig { return PipConfig{IndexURL: odd.URL + "/elsewhere"} }, "", false, true, 0},
		{"redirect to an index's host", func(*index.Server) PipConfig {
			return PipConfig{IndexURL: odd.URL + "/elsewhere", ExtraIndexURLs: []string{elsewhere.URL()}}
		}, "", false, false, 2},
		{"one of two", func(s *index.Server) PipConfig {
			s.SetDown(true)
			return PipConfig{IndexURL: s.URL(), ExtraIndexURLs: []string{elsewhere.URL()}}
		}, "closed the connection", false, false, 1},
		{"no index", func(s *index.Server) PipConfig { s.SetDown(true); return PipConfig{IndexURL: s.URL(), NoIndex: true} }, "", false, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newTestIndex(t, c.config(newTestServer(t)), IndexOptions{})
			page, err := x.Lookup(t.Context(), "thing")
			if len(page.Files) != c.files || page.Found != (c.files > 0) {
				t.Errorf("got %+v", page)
			}
			failed, host := new(IndexError), new(HostError)
			switch {
			case c.host:
				if !errors.As(err, &host) || host.Host != elsewhere.Host() || len(page.Files) != 0 {
					t.Errorf("got %v", err)
				}
			case c.reason == "":
				if err != nil {
					t.Error(err)
				}
			case !errors.As(err, &failed) || !strings.Contains(failed.Reason, c.reason) || failed.Timeout != c.timeout || failed.Host == "":
				t.Errorf("got %v", err)
			case strings.Contains(err.Error(), "wrongword"), strings.Contains(err.Error(), "http://"):
				t.Errorf("it shows too much: %v", err)
			}
		})
	}
	t.Run("the caller leaves", func(t *testing.T) {
		t.Parallel()
		s := newTestServer(t)
		s.SetPages(time.Hour, 0)
		x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := x.Lookup(ctx, "thing"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no name", func(t *testing.T) {
		t.Parallel()
		x := newTestIndex(t, PipConfig{NoIndex: true}, IndexOptions{})
		for _, name := range []string{"", "../x", "a/b", "-a", "a b", "ä", strings.Repeat("a", 201)} {
			if _, err := x.Lookup(t.Context(), name); err == nil {
				t.Errorf("%q is taken", name)
			}
		}
	})
}

func TestIndexFindLinks(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	s.Add(index.Project{Name: "page", Files: []index.File{{Name: "thing-2-py3-none-any.whl"}, {Name: "other-2-py3-none-any.whl"}}})
	dir := t.TempDir() + "/a b"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"thing-1-py3-none-any.whl", "Thing-1.5.tar.gz", "other-1-py3-none-any.whl", "thing.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("four"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "thing-3-py3-none-any.whl"), 0o700); err != nil {
		t.Fatal(err)
	}
	x := newTestIndex(t, PipConfig{NoIndex: true, FindLinks: []string{fileURL(dir), "/does/not/exist", s.URL() + "page/", s.FileURL("thing-4-py3-none-any.whl")}}, IndexOptions{})
	if got := x.LocalDirs(); !slices.Equal(got, []string{dir}) {
		t.Errorf("got %q", got)
	}
	page, err := x.Lookup(t.Context(), "thing")
	if err != nil || !page.Found {
		t.Fatalf("got %+v, %v", page, err)
	}
	var got []string
	for _, f := range page.Files {
		got = append(got, f.URL+" "+f.Version+" "+fmt.Sprint(f.Size))
	}
	want := []string{
		s.FileURL("thing-2-py3-none-any.whl") + " 2 0", s.FileURL("thing-4-py3-none-any.whl") + " 4 -1",
		fileURL(dir+"/Thing-1.5.tar.gz") + " 1.5 4", fileURL(dir+"/thing-1-py3-none-any.whl") + " 1 4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if page, err := x.Lookup(t.Context(), "none"); err != nil || page.Found {
		t.Errorf("got %+v, %v", page, err)
	}
}

func TestIndexCacheIsBounded(t *testing.T) {
	t.Parallel()
	var c pageCache
	for i := range 3 * maxCachedPages {
		c.put(fmt.Sprint(i), make([]File, 1000))
	}
	if len(c.pages) > maxCachedPages || c.files != 1000*len(c.pages) || c.files > maxCachedFiles {
		t.Errorf("%d pages with %d files are kept", len(c.pages), c.files)
	}
	if _, ok := c.get(fmt.Sprint(3*maxCachedPages - 1)); !ok {
		t.Error("the newest page is not kept")
	}
	c.put("large", make([]File, maxCachedFiles+1))
	if _, ok := c.get("large"); ok {
		t.Error("a page that is too large is kept")
	}
	c.put("old", nil)
	c.pages["old"] = cachedPage{until: time.Now().Add(-time.Second)}
	if _, ok := c.get("old"); ok {
		t.Error("an old page is believed")
	}
}
