package packages

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

func TestInstall(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("b", 1), synthetic("a", 1))
	i := begin(t, s)
	first := i.Base()
	if first.Number != 1 || names(first) != "a-1,b-1" || first.Site != s.Dir()+"/generations/1/site" {
		t.Errorf("got %+v", first)
	}
	if target, err := os.Readlink(s.path("current")); target != "generations/1" {
		t.Errorf("current leads to %q, %v", target, err)
	}
	a, ok := first.Find("A")
	if !ok || !slices.Equal(a.TopLevel, []string{"a", "shared"}) || a.Requested {
		t.Errorf("got %+v", a)
	}
	if found, ok := i.Stored(a.SHA256); !ok || found.Bytes != a.Bytes {
		t.Errorf("got %+v, want what the manifest has", found)
	}
	a.Requested, a.Specifier, a.Extras, a.Bytes = true, ">=1", []string{"x"}, -1
	b, _ := first.Find("b")
	g, err := i.Build(context.Background(), []Package{b, a})
	must(t, err)
	got, _ := g.Find("a")
	if !got.Requested || got.Specifier != ">=1" || !slices.Equal(got.Extras, []string{"x"}) || got.Bytes <= 0 {
		t.Errorf("got %+v, want what was asked for and the store's own size", got)
	}
	must(t, i.Switch(context.Background(), g))
	i.End()
	i.End()
	g = s.Current()
	defer g.Release()
	if again, _ := g.Find("a"); g.Number != 2 || !again.Requested {
		t.Errorf("got %+v", g)
	}
	checkSite(t, g)
	checkShared(t, s.dir, "")
	for _, file := range []string{"a/m1.py", "shared/b/__pycache__/m2.cpython-311.pyc", "b/run.sh"} {
		if links := linksOf(t, filepath.Join(g.Site, file)); links != 2 {
			t.Errorf("%s has %d links, want that of the store and one", file, links)
		}
	}
}

func linksOf(t *testing.T, path string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Stat(path, &stat))
	return stat.Nlink
}

func TestAnEmptySet(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	install(t, s)
	g := s.Current()
	defer g.Release()
	if entries := list(t, g.Site); g.Number != 2 || len(entries) != 0 || len(g.Packages) != 0 {
		t.Errorf("got %+v with %q", g, entries)
	}
}

func TestBuildNeedsEachPackageOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	i := begin(t, s)
	defer i.End()
	p := stored(t, i, synthetic("a", 1))
	gone := p
	gone.SHA256 = strings.Repeat("0", 64)
	evil := p
	evil.Name = "../a"
	for what, set := range map[string][]Package{"twice": {p, p}, "install it again": {gone}, "cannot be one": {evil}} {
		if g, err := i.Build(context.Background(), set); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, %v; want an error with %q", g, err, what)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := i.Build(ctx, []Package{p}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// When two packages bring the same file, that of the first stays, and no compiled file of the second one's is linked.
func TestPackagesMeet(t *testing.T) {
	t.Parallel()
	a := testWheel{file: "a-1-py3-none-any.whl", files: []wheelEntry{{name: "ns/x.py", content: "a"}, {name: "ns/README", content: "same"}, {name: "file", content: "a"}, {name: "dir/x", content: "a"}}}
	b := testWheel{file: "b-1-py3-none-any.whl", files: []wheelEntry{{name: "ns/x.py", content: "b"}, {name: "ns/y.py", content: "b"}, {name: "ns/README", content: "same"}, {name: "file/x", content: "b"}, {name: "dir", content: "b"}}}
	s := newStore(t)
	i := begin(t, s)
	defer i.End()
	u := unpacked(t, i, a)
	first, err := i.Keep(u, "") // without compiled files, so that x.py has none that could hide b's
	must(t, err)
	g, err := i.Build(context.Background(), []Package{stored(t, i, b), first})
	must(t, err)
	got := readTree(t, g.Site)
	for name, want := range map[string]string{"ns/x.py": "a", "ns/y.py": "b", "ns/README": "same", "file": "a", "dir/x": "a", "file/x": "", "ns/__pycache__/y.cpython-311.pyc": "compiled b",
		"ns/__pycache__/x.cpython-311.pyc": ""} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestCopyWhereNoLinkIsPossible(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, writeFile(dir+"/a", "content"))
	must(t, os.Chmod(dir+"/a", 0o755))
	changed := time.Unix(1_000_000_000, 0)
	must(t, os.Chtimes(dir+"/a", time.Time{}, changed))
	must(t, copyFile(dir+"/a", dir+"/b"))
	stat, err := os.Stat(dir + "/b")
	must(t, err)
	if text, _ := os.ReadFile(dir + "/b"); string(text) != "content" || stat.Mode() != 0o755 || !stat.ModTime().Equal(changed) {
		t.Errorf("got %q, %v, %v", text, stat.Mode(), stat.ModTime())
	}
	if err := copyFile(dir+"/a", dir+"/b"); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v for a file that is there", err)
	}
	shm, err := os.MkdirTemp("/dev/shm", "packages")
	if err != nil {
		skip.Without(t, "no second file system to link to: "+err.Error())
	}
	defer func() { _ = os.RemoveAll(shm) }()
	must(t, linkFile(dir+"/a", shm+"/a"))
	if text, _ := os.ReadFile(shm + "/a"); string(text) != "content" {
		t.Errorf("got %q", text)
	}
}

func TestNumbersAreNotGivenTwice(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for n := range 3 {
		i := begin(t, s)
		g := build(t, i, synthetic("a", 1))
		if g.Number != n+1 {
			t.Errorf("got %d, want %d", g.Number, n+1)
		}
		i.End()
	}
	other := secondStore(t, s)
	i := begin(t, other)
	if g := build(t, i); g.Number != 4 {
		t.Errorf("got %d in another process", g.Number)
	}
	i.End()
	if text, err := os.ReadFile(s.path("lock")); string(text) != "4\n" {
		t.Errorf("the lock holds %q, %v", text, err)
	}
	must(t, os.WriteFile(s.path("lock"), []byte("\x00\x00"), 0o600)) // as a crash may leave it
	i = begin(t, other)
	if g := build(t, i); g.Number != 5 {
		t.Errorf("got %d", g.Number)
	}
	i.End()
}
