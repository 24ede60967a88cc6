package pool

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// While modules are preloaded, HOME and TMPDIR are writable, for modules that write a cache or temporary files when they are imported.
// Programs find none of these files, and have their own HOME and TMPDIR.
func TestPreloadHasAPlaceToWriteTo(t *testing.T) {
	t.Parallel()
	dir := moduleDir(t, "keeps_a_cache", "import os, tempfile\nos.makedirs(os.path.expanduser('~/.cache/one'))\npath = tempfile.mkstemp()[1]\n")
	for name, isolation := range map[string]Isolation{"namespaces": IsolationStrict, "process": IsolationNone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: isolation, Templates: 1, Idle: 1, Max: 1, PythonPath: []string{dir}, Preload: []string{"keeps_a_cache"}})
			r := execute(t, p, `import os, sys, tempfile
print('keeps_a_cache' in sys.modules)
import keeps_a_cache
print(os.path.exists(keeps_a_cache.path), tempfile.gettempdir() == os.environ['TMPDIR'], os.listdir(os.environ['HOME']))
tempfile.TemporaryFile().close()`, 10*time.Second)
			if r.Stdout != "True\nFalse True ['main.py']\n" || r.Stderr != "" {
				t.Errorf("got %+v", r)
			}
			if entries, _ := filepath.Glob(filepath.Join(p.scratchDir, "template-*")); p.scratchDir != "" && len(entries) > 0 {
				t.Errorf("%v are left", entries)
			}
		})
	}
}

// moduleDir makes a directory with one module that templates can import with and without namespaces.
func moduleDir(t *testing.T, name, source string) string {
	t.Helper()
	// Not below /tmp, which scratch hides. As root the unprivileged ids of lanes must be able to enter the parent directory.
	home, _ := os.UserHomeDir()
	var dir string
	var err error
	for _, parent := range []string{"/srv", "/opt", home} {
		if dir, err = os.MkdirTemp(parent, "sandbox-preload-"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".py"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
