package packages

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheStoreKeepsOneOfAHash(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	i := begin(t, s)
	defer i.End()
	first, second := unpacked(t, i, synthetic("a", 1)), unpacked(t, i, synthetic("a", 1))
	p, err := i.Keep(first, compile(t, first.Site))
	must(t, err)
	again, err := i.Keep(second, "")
	must(t, err)
	if again.Bytes != p.Bytes {
		t.Errorf("got %d bytes, want those of the one that was there: %d", again.Bytes, p.Bytes)
	}
	if _, err := i.Keep(first, ""); err == nil {
		t.Error("kept the same twice")
	}
}

func unpacked(t *testing.T, i *Install, w testWheel) *Unpacked {
	t.Helper()
	u, err := i.Unpack(context.Background(), w.write(t), WheelLimits{})
	must(t, err)
	return u
}

func TestStoredIsOnlyWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	i := begin(t, s)
	defer i.End()
	p := stored(t, i, synthetic("a", 1))
	other := p.SHA256[:entryHashDigits] + strings.Repeat("0", 64-entryHashDigits)
	for _, hash := range []string{other, strings.ToUpper(p.SHA256), "", "../..", p.SHA256[:16]} {
		if found, ok := i.Stored(hash); ok {
			t.Errorf("%q: got %+v", hash, found)
		}
	}
	u := unpacked(t, i, synthetic("b", 1))
	if found, ok := i.Stored(u.Package.SHA256); ok {
		t.Errorf("got %+v for what is only unpacked", found)
	}
}

func TestCompiledIsNotBelieved(t *testing.T) {
	t.Parallel()
	for what, row := range map[string]struct {
		make   func(dir string) error
		reason string // of the error; "" when Keep succeeds
	}{
		"beside":       {func(dir string) error { return writeFile(dir+"/a/m1.cpython-311.pyc", "x") }, ""},
		"optimized":    {func(dir string) error { return writeFile(dir+"/a/__pycache__/m1.cpython-311.opt-2.pyc", "x") }, ""},
		"others":       {func(dir string) error { return writeFile(dir+"/log.txt", "x") }, ""},
		"no such":      {func(dir string) error { return writeFile(dir+"/a/__pycache__/other.cpython-311.pyc", "x") }, "from no module"},
		"no directory": {func(dir string) error { return writeFile(dir+"/six/__pycache__/m1.cpython-311.pyc", "x") }, "from no module"},
		"at the top":   {func(dir string) error { return writeFile(dir+"/m1.cpython-311.pyc", "x") }, "from no module"},
		"no tag":       {func(dir string) error { return writeFile(dir+"/a/m1.pyc", "x") }, "not named like"},
		"twice": {func(dir string) error {
			return errors.Join(writeFile(dir+"/a/m1.cpython-311.pyc", "x"), writeFile(dir+"/a/__pycache__/m1.cpython-311.pyc", "y"))
		}, "exists"},
		"a link": {func(dir string) error { return os.Symlink("/etc/passwd", dir+"/m.cpython-311.pyc") }, "from no module"},
		"a link, named": {func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/a", 0o755), os.Symlink("/etc/passwd", dir+"/a/m1.cpython-311.pyc"))
		}, "m1"},
		"a fifo": {func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/a", 0o755), unix.Mkfifo(dir+"/a/m1.cpython-311.pyc", 0o644))
		}, "not a file"},
		"a directory":   {func(dir string) error { return os.MkdirAll(dir+"/a/m1.cpython-311.pyc", 0o755) }, ""},
		"a linked tree": {func(dir string) error { return os.Symlink("/", dir+"/a") }, ""},
		"large":         {func(dir string) error { return writeFile(dir+"/a/m1.cpython-311.pyc", strings.Repeat("x", 1<<17+1)) }, "larger than a wheel"},
		"not there":     {func(dir string) error { return os.Remove(dir) }, "no such file"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			i := begin(t, s)
			defer i.End()
			u, err := i.Unpack(context.Background(), synthetic("a", 1).write(t), WheelLimits{MaxBytes: 1 << 17})
			must(t, err)
			dir := t.TempDir()
			must(t, row.make(dir))
			p, err := i.Keep(u, dir)
			if row.reason != "" {
				if err == nil || !strings.Contains(err.Error(), row.reason) {
					t.Errorf("got %v, want an error with %q", err, row.reason)
				}
				if kept := list(t, s.path("store")); len(kept) != 0 {
					t.Errorf("the store holds %q", kept)
				}
				return
			}
			must(t, err)
			g, err := i.Build(context.Background(), []Package{p})
			must(t, err)
			var held int64
			for _, content := range readTree(t, g.Site) {
				held += int64(len(content))
			}
			if held != p.Bytes {
				t.Errorf("%d bytes are there, and the package says %d", held, p.Bytes)
			}
		})
	}
}
