package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// wheelOf returns a file with a wheel's name. Its content is none of a wheel, which a download does not check.
func wheelOf(name string, size int) index.File {
	return index.File{Name: name + "-1-py3-none-any.whl", Content: bytes.Repeat([]byte(name[:1]), size)}
}

func wantedOf(s *index.Server, f index.File) Wanted {
	return Wanted{Name: f.Name[:1], Version: "1", URL: s.FileURL(f.Name), SHA256: hashOf(f.Content)}
}

// checkDirectory checks that a directory has exactly these files, complete.
func checkDirectory(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if wanted, ok := want[entry.Name()]; !ok || err != nil || !bytes.Equal(content, wanted) {
			t.Errorf("%s has %d bytes, want %d (%v)", entry.Name(), len(content), len(wanted), err)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("there are %d files, want %d", len(entries), len(want))
	}
}

func TestDownloadOfSeveral(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	var files []index.File
	var wanted []Wanted
	want := map[string][]byte{}
	total := 0
	for i := range 9 {
		f := wheelOf(string(rune('a'+i)), 100_000*i)
		files, wanted, want[f.Name] = append(files, f), append(wanted, wantedOf(s, f)), f.Content
		total += len(f.Content)
	}
	wanted[3].SHA256 = ""
	wanted[4].SHA256 = strings.ToUpper(wanted[4].SHA256)
	wanted[5].URL += "#sha256=something"
	s.Add(index.Project{Name: "x", Files: files})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	if _, err := x.Lookup(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var reports [][2]int64
	paths, err := x.Download(t.Context(), dir, wanted, DownloadOptions{MaxBytes: int64(total), Progress: func(done, total int64) {
		reports = append(reports, [2]int64{done, total})
	}})
	if err != nil || len(paths) != len(files) {
		t.Fatalf("got %q, %v", paths, err)
	}
	for i, path := range paths {
		if path != filepath.Join(dir, files[i].Name) {
			t.Errorf("path %d is %s", i, path)
		}
	}
	checkDirectory(t, dir, want)
	if last := reports[len(reports)-1]; last != [2]int64{int64(total), int64(total)} {
		t.Errorf("the last report is %v, want %d", last, total)
	}
	if got, err := x.Download(t.Context(), dir, nil, DownloadOptions{}); err != nil || len(got) != 0 {
		t.Errorf("nothing: got %q, %v", got, err)
	}
}

func TestDownloadKnowsSizesBeforehand(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	a, b := wheelOf("a", 1000), wheelOf("b", 1000)
	s.Add(index.Project{Name: "x", Files: []index.File{a, b}})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	if _, err := x.Lookup(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	_, err := x.Download(t.Context(), t.TempDir(), []Wanted{wantedOf(s, a), wantedOf(s, b)}, DownloadOptions{MaxBytes: 1999})
	large := new(TooLargeError)
	if !errors.As(err, &large) || *large != (TooLargeError{b.Name, 2000, 1999}) || s.WheelDownloads() != 0 {
		t.Errorf("got %v after %q", err, s.Requests())
	}
}

func TestDownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	f := wheelOf("a", 1000)
	f.Delay = time.Hour
	s.Add(index.Project{Name: "a", Files: []index.File{f}})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := x.Download(ctx, dir, []Wanted{wantedOf(s, f)}, DownloadOptions{})
		ended <- err
	}()
	indexEventually(t, "the request", func() bool { return s.WheelDownloads() == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	checkDirectory(t, dir, nil)
}

// indexEventually waits until condition holds, which other goroutines bring about.
func indexEventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come: %s", what)
		}
	}
}

// The first failure ends the other downloads, and is the error that Download returns.
func TestDownloadTellsTheFirstFailure(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	slow, missing := wheelOf("a", 1000), wheelOf("b", 1000)
	slow.Delay = time.Hour
	missing.Status = 404
	s.Add(index.Project{Name: "x", Files: []index.File{slow, missing}})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	_, err := x.Download(t.Context(), t.TempDir(), []Wanted{wantedOf(s, slow), wantedOf(s, missing)}, DownloadOptions{})
	if none := new(NotFoundError); !errors.As(err, &none) || none.Name != missing.Name {
		t.Errorf("got %v", err)
	}
}

func TestDownloadStaysOnAllowedHosts(t *testing.T) {
	t.Parallel()
	s, files := newTestServer(t), newTestServer(t)
	f := wheelOf("a", 1000)
	files.Add(index.Project{Name: "a", Files: []index.File{f}})
	announced := f
	announced.URL = files.FileURL(f.Name)
	s.Add(index.Project{Name: "a", Files: []index.File{announced}})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	page, err := x.Lookup(t.Context(), "a")
	if err != nil || len(page.Files) != 1 {
		t.Fatalf("got %+v, %v", page, err)
	}
	wanted := []Wanted{{Name: "a", Version: "1", URL: page.Files[0].URL, SHA256: page.Files[0].SHA256}}
	dir := t.TempDir()
	_, err = x.Download(t.Context(), dir, wanted, DownloadOptions{})
	host := new(HostError)
	if !errors.As(err, &host) || host.Host != files.Host() || len(files.Requests()) != 0 {
		t.Errorf("got %v after %q", err, files.Requests())
	}
	if want := fmt.Sprintf("packages { hosts %s }", files.Host()); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %s", err, want)
	}
	if got := x.Sizes(t.Context(), []Wanted{{URL: files.FileURL("x")}}, nil); got[0] != -1 || len(files.Requests()) != 0 {
		t.Errorf("got %d after %q", got, files.Requests())
	}
	if _, err := x.Download(t.Context(), dir, wanted, DownloadOptions{Hosts: page.Hosts()}); err != nil {
		t.Error(err)
	}
	checkDirectory(t, dir, map[string][]byte{f.Name: f.Content})
}

func TestDownloadRefusesOddFiles(t *testing.T) {
	t.Parallel()
	x := newTestIndex(t, PipConfig{IndexURL: "https://a.example/"}, IndexOptions{ExtraHosts: []string{"a.example:80"}})
	sum := strings.Repeat("0", 64)
	for _, c := range []struct{ url, sum, failure string }{
		{"https://a.example/x.tar.gz", sum, "no wheel"},
		{"https://a.example/", sum, "no wheel"},
		{"https://a.example/..%2f..%2f.whl%2f", sum, "no wheel"},
		{"https://a.example/.whl", sum, "no wheel"},
		{"https://a.example/.x.whl", sum, "no wheel"},
		{"https://a.example/a%00b.whl", sum, "no wheel"},
		{"https://a.example/a%0ab.whl", sum, "no wheel"},
		{"https://a.example/" + strings.Repeat("a", 300) + ".whl", sum, "no wheel"},
		{"https://a.example/a.whl", "0", "64 hexadecimal"},
		{"http://a.example/a.whl", "", "plain HTTP without a hash"},
		{"ftp://a.example/a.whl", sum, "not fetched"},
		{"a.whl", sum, "not fetched"},
		{"https://a.example/%zz.whl", sum, "no URL"},
		{"https://b.example/a.whl", sum, "hosts b.example }"},
		{"file:///etc/a.whl", sum, "outside the directories of find-links"},
	} {
		dir := t.TempDir()
		_, err := x.Download(t.Context(), dir, []Wanted{{Name: "x", Version: "1", URL: c.url, SHA256: c.sum}}, DownloadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.failure) {
			t.Errorf("%.60s: got %v, want %q", c.url, err, c.failure)
		}
		checkDirectory(t, dir, nil)
	}
	twice := []Wanted{{URL: "https://a.example/1/a.whl"}, {URL: "https://a.example/2/a.whl"}}
	if _, err := x.Download(t.Context(), t.TempDir(), twice, DownloadOptions{}); err == nil || !strings.Contains(err.Error(), "two files") {
		t.Errorf("got %v", err)
	}
}

func TestDownloadSizes(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	missing := wheelOf("c", 1)
	missing.Status = 404
	seen := wheelOf("d", 40)
	chunked := wheelOf("e", 50)
	chunked.Chunked = true
	s.Add(index.Project{Name: "x", Files: []index.File{wheelOf("a", 10), wheelOf("b", 20), missing, chunked}})
	s.Add(index.Project{Name: "d", Files: []index.File{seen}})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	if _, err := x.Lookup(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	var wanted []Wanted
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		wanted = append(wanted, Wanted{URL: s.FileURL(name + "-1-py3-none-any.whl")})
	}
	wanted = append(wanted, Wanted{URL: "%zz"})
	if got := x.Sizes(t.Context(), wanted, nil); !slices.Equal(got, []int64{10, 20, -1, 40, -1, -1}) {
		t.Errorf("got %d", got)
	}
	if slices.Contains(s.Requests(), "HEAD /files/"+seen.Name) || s.WheelDownloads() != 0 {
		t.Errorf("asked for %q", s.Requests())
	}
}

// Calls of Progress do not overlap, and never report more bytes than the files have.
func TestDownloadReportsProgress(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	var files []index.File
	var wanted []Wanted
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		f := wheelOf(name, 3<<20)
		files, wanted = append(files, f), append(wanted, wantedOf(s, f))
	}
	s.Add(index.Project{Name: "x", Files: files})
	x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
	var mu sync.Mutex
	reports := 0
	_, err := x.Download(t.Context(), t.TempDir(), wanted, DownloadOptions{Progress: func(done, total int64) {
		if !mu.TryLock() {
			t.Error("two reports at once")
			return
		}
		defer mu.Unlock()
		reports++
		if total != -1 && (total != 18<<20 || done > total) {
			t.Errorf("got %d of %d", done, total)
		}
	}})
	if err != nil || reports == 0 {
		t.Errorf("%d reports, %v", reports, err)
	}
}
