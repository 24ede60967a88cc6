package packages

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// broken has ways to damage generation 3, which is current, or the link to it, while generations 1 and 2 are retained.
var broken = map[string]func(t *testing.T, dir string){
	"no manifest":     func(t *testing.T, dir string) { must(t, os.Remove(dir+"/generations/3/manifest.json")) },
	"half a manifest": func(t *testing.T, dir string) { must(t, os.Truncate(dir+"/generations/3/manifest.json", 100)) },
	"empty manifest":  func(t *testing.T, dir string) { must(t, os.Truncate(dir+"/generations/3/manifest.json", 0)) },
	"wrong manifest":  func(t *testing.T, dir string) { must(t, copyOver(dir, "2", "3")) },
	"manifest of paths": func(t *testing.T, dir string) {
		must(t, writeFile(dir+"/generations/3/manifest.json", `{"number": 3, "packages": [{"name": "../../x"}]}`))
	},
	"no site": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/generations/3/site")) },
	"site is a file": func(t *testing.T, dir string) {
		must(t, os.RemoveAll(dir+"/generations/3/site"))
		must(t, writeFile(dir+"/generations/3/site", ""))
	},
	"no generation": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/generations/3")) },
	"another link": func(t *testing.T, dir string) {
		must(t, os.Remove(dir+"/current"))
		must(t, os.Symlink("/etc", dir+"/current"))
	},
	"link outside": func(t *testing.T, dir string) {
		must(t, os.Remove(dir+"/current"))
		must(t, os.Symlink("generations/../../x", dir+"/current"))
	},
	"not a link": func(t *testing.T, dir string) {
		must(t, os.Remove(dir+"/current"))
		must(t, writeFile(dir+"/current", "generations/3"))
	},
	"a directory": func(t *testing.T, dir string) {
		must(t, os.Remove(dir+"/current"))
		must(t, writeFile(dir+"/current/site/x", ""))
	},
	"the second, too": func(t *testing.T, dir string) {
		must(t, os.Remove(dir+"/generations/3/manifest.json"))
		must(t, os.RemoveAll(dir+"/generations/2/site"))
	},
	"all": func(t *testing.T, dir string) {
		for _, n := range []string{"1", "2", "3"} {
			must(t, os.Remove(dir+"/generations/"+n+"/manifest.json"))
		}
	},
}

func copyOver(dir, from, to string) error {
	text, err := os.ReadFile(dir + "/generations/" + from + "/manifest.json")
	if err != nil {
		return err
	}
	return os.WriteFile(dir+"/generations/"+to+"/manifest.json", text, 0o644)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestABrokenGenerationIsReplaced(t *testing.T) {
	t.Parallel()
	for what, damage := range broken {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			install(t, s, synthetic("a", 1))
			first := s.Current()
			install(t, s, synthetic("a", 2))
			second := s.Current()
			install(t, s, synthetic("a", 3))
			must(t, s.Close())
			damage(t, dir)
			var log bytes.Buffer
			s, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
			must(t, err)
			g := s.Current()
			// When only current itself is damaged, the newest generation is whole and is found.
			want := map[string]int{"another link": 3, "link outside": 3, "not a link": 3, "a directory": 3, "the second, too": 1, "all": 0}
			expected, special := want[what]
			if !special {
				expected = 2
			}
			if g.Number != expected {
				t.Errorf("got generation %d, want %d", g.Number, expected)
			}
			if !strings.Contains(log.String(), "broken") || !strings.Contains(log.String(), "replaced_by="+strconv.Itoa(expected)) {
				t.Errorf("the log says %q", log.String())
			}
			install(t, s, synthetic("b", 1)) // must not get the number of a broken generation
			last := s.Current()
			if last.Number != 4 {
				t.Errorf("got generation %d after the third", last.Number)
			}
			for _, g := range []*Generation{first, second, g, last} {
				g.Release()
			}
			must(t, s.Close())
			checkWhole(t, dir)
		})
	}
}

// A manifest that cannot be read for lack of a permission must not count as broken: its packages would be removed.
func TestWhatCannotBeReadStays(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		// Permissions do not keep root from reading. Reading /proc/self/mem at offset 0 fails for root, too.
		dir := t.TempDir()
		s := openStore(t, dir)
		install(t, s, synthetic("a", 1))
		must(t, s.Close())
		manifest := dir + "/generations/1/manifest.json"
		must(t, os.Rename(manifest, manifest+".aside"))
		must(t, os.Symlink("/proc/self/mem", manifest))
		if s, err := Open(dir, nil); err == nil {
			t.Errorf("opened with generation %d", s.current.Number)
		}
		must(t, os.Remove(manifest))
		must(t, os.Rename(manifest+".aside", manifest))
		checkWhole(t, dir)
		return
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	install(t, s, synthetic("a", 1))
	must(t, s.Close())
	must(t, os.Chmod(dir+"/generations/1", 0))
	if s, err := Open(dir, nil); err == nil {
		t.Errorf("opened with generation %d", s.current.Number)
	}
	must(t, os.Chmod(dir+"/generations/1", 0o755))
	checkWhole(t, dir)
}

func TestOpenRemovesWhatACrashLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	install(t, s, synthetic("a", 1))
	must(t, s.Close())
	for _, stray := range []string{"staging/x/unpacked/1/site/a.py", "staging/y/lock", "staging/removed-z/manifest.json", "staging/file",
		"store/b-1-0123456789abcdef/package.json", "store/half/x", "generations/7/site/a.py", "generations/8/manifest.json"} {
		must(t, writeFile(filepath.Join(dir, stray), "{}"))
	}
	must(t, os.Symlink("generations/7", dir+"/current.XYZ"))
	checkWhole(t, dir)
}
