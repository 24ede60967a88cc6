package packages

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// synthetic returns a wheel whose content depends on its name and version only. All synthetic wheels share the directory shared, as
// namespace packages do.
func synthetic(name string, version int) testWheel {
	w := testWheel{file: fmt.Sprintf("%s-%d-py3-none-any.whl", name, version)}
	for n := range 8 {
		content := strings.Repeat(fmt.Sprintf("# %s %d %d\n", name, version, n), 1+n*50)
		w.files = append(w.files, wheelEntry{name: fmt.Sprintf("%s/m%d.py", name, n), content: content},
			wheelEntry{name: fmt.Sprintf("shared/%s/m%d.py", name, n), content: content})
	}
	w.files = append(w.files, wheelEntry{name: name + "/run.sh", content: "#!/bin/sh\n", mode: 0o100755}, wheelEntry{name: name + "-nspkg.pth", content: "import os"})
	return w
}

// compile writes a file of the right name for each module of a site, without real bytecode, and returns their directory.
func compile(t testing.TB, site string) string {
	t.Helper()
	out := t.TempDir()
	err := filepath.WalkDir(site, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".py" {
			return err
		}
		rest, _ := filepath.Rel(site, path)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(out, filepath.Dir(rest), pycache, strings.TrimSuffix(entry.Name(), "py")+"cpython-311.pyc"), "compiled "+string(content))
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// contents returns the files, by path, that a synthetic wheel has once it is installed and compiled.
func contents(t testing.TB, p Package) map[string]string {
	version, err := strconv.Atoi(p.Version)
	if err != nil {
		t.Fatal(err)
	}
	w := synthetic(p.Name, version)
	distInfo := p.Name + "-" + p.Version + ".dist-info"
	files := map[string]string{distInfo + "/INSTALLER": installer, distInfo + "/METADATA": "", distInfo + "/WHEEL": "", distInfo + "/RECORD": ""}
	for _, f := range w.files {
		if filepath.Ext(f.name) == ".pth" {
			continue
		}
		files[f.name] = f.content
		if stem, ok := strings.CutSuffix(f.name, ".py"); ok {
			files[filepath.Join(filepath.Dir(stem), pycache, filepath.Base(stem)+".cpython-311.pyc")] = "compiled " + f.content
		}
	}
	return files
}

// stored puts a wheel into the store, unless it is there already, and returns its package.
func stored(t testing.TB, i *Install, w testWheel) Package {
	t.Helper()
	u, err := i.Unpack(context.Background(), w.write(t), WheelLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := i.Stored(u.Package.SHA256); ok {
		return p
	}
	p, err := i.Keep(u, compile(t, u.Site))
	if err != nil {
		t.Fatal(err)
	}
	if found, ok := i.Stored(p.SHA256); !ok || found.Name != p.Name || found.Bytes != p.Bytes {
		t.Errorf("kept %+v, and the store has %+v", p, found)
	}
	return p
}

// install switches the store to a generation with these wheels.
func install(t testing.TB, s *Store, wheels ...testWheel) {
	t.Helper()
	i := begin(t, s)
	defer i.End()
	if err := i.Switch(context.Background(), build(t, i, wheels...)); err != nil {
		t.Fatal(err)
	}
}

func build(t testing.TB, i *Install, wheels ...testWheel) *Generation {
	t.Helper()
	var set []Package
	for _, w := range wheels {
		set = append(set, stored(t, i, w))
	}
	g, err := i.Build(context.Background(), set)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// checkSite checks that a generation has exactly the files that its synthetic wheels must have, and that its sizes are right. The
// content of .dist-info is not checked.
func checkSite(t testing.TB, g *Generation) {
	t.Helper()
	want := map[string]string{}
	var bytes int64
	for _, p := range g.Packages {
		maps.Copy(want, contents(t, p))
		bytes += p.Bytes
	}
	var held int64
	got := readTree(t, g.Site)
	for name, content := range got {
		expected, ok := want[name]
		if !ok || expected != content && !strings.Contains(name, ".dist-info/") {
			t.Errorf("generation %d: %s has %d bytes, want %d", g.Number, name, len(content), len(expected))
		}
		held += int64(len(content))
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("generation %d: %s is missing", g.Number, name)
		}
	}
	if bytes != g.Bytes() || bytes != held {
		t.Errorf("generation %d: the packages say %d bytes, it says %d, and there are %d", g.Number, bytes, g.Bytes(), held)
	}
}

func readTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if dir == "" {
		return files
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// checkWhole checks that a store's directory has one generation, or none, the entries that the generation names, and nothing else.
func checkWhole(t testing.TB, dir string) {
	t.Helper()
	s := openStore(t, dir)
	defer func() { _ = s.Close() }()
	g := s.Current()
	defer g.Release()
	checkSite(t, g)
	want := map[string][]string{"": {"generations", "lock", "staging", "store"}, "staging": nil, "generations": nil, "store": nil}
	if g.Number > 0 {
		want[""] = append(want[""], "current")
		want["generations"] = []string{strconv.Itoa(g.Number)}
	}
	for _, p := range g.Packages {
		name, err := entryName(p)
		if err != nil {
			t.Error(err)
		}
		want["store"] = append(want["store"], name)
	}
	for sub, names := range want {
		if got := list(t, filepath.Join(dir, sub)); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
			t.Errorf("%q holds %q, want %q", sub, got, names)
		}
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}

// checkShared checks that a tree is readable for all, except for the directory private and the files of locks.
func checkShared(t testing.TB, dir, private string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type() == fs.ModeSymlink {
			return err
		}
		if path == private {
			return fs.SkipDir
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o644)
		switch {
		case entry.IsDir() || filepath.Ext(path) == ".sh":
			want = 0o755
		case entry.Name() == "lock":
			want = 0o600
		}
		if stat.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, want %v", path, stat.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
