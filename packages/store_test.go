package packages

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childMode is the environment variable that tells a child process, which runs this test binary, what to do; see TestChild.
const childMode = "PACKAGES_TEST_CHILD"

// TestChild is what the child processes of other tests run.
func TestChild(t *testing.T) {
	dir := os.Getenv("PACKAGES_TEST_DIR")
	switch os.Getenv(childMode) {
	case "":
		t.Skip("run by other tests")
	case "install": // one set after the other, until the child is killed
		installForever(t, dir)
	case "hold": // begins an install and holds it until stdin ends
		s := openStore(t, dir)
		i := begin(t, s)
		fmt.Println("ready", i.Base().Number)
		_, _ = os.Stdin.Read(make([]byte, 1))
		i.End()
		_ = s.Close()
	case "use": // retains the current generation until stdin ends
		s := openStore(t, dir)
		g := s.Current()
		fmt.Println("ready", g.Number)
		_, _ = os.Stdin.Read(make([]byte, 1))
		g.Release()
		_ = s.Close()
	case "umask":
		syscall.Umask(0o077)
		s := openStore(t, filepath.Join(dir, "made", "for", "it"))
		install(t, s, synthetic("a", 1), synthetic("b", 1))
		i := begin(t, s)
		u, err := i.Unpack(context.Background(), synthetic("c", 1).write(t), WheelLimits{})
		if err != nil {
			t.Fatal(err)
		}
		checkShared(t, filepath.Join(dir, "made"), i.Dir())
		if stat, err := os.Stat(i.Dir()); err != nil || stat.Mode().Perm() != 0o700 {
			t.Errorf("got %v, %v; downloads are Caddy's only", stat, err)
		}
		if _, err := i.Keep(u, compile(t, u.Site)); err != nil {
			t.Fatal(err)
		}
		i.End()
		_ = s.Close()
	}
}

// childCommand returns a command that runs TestChild. Its temporary directories are below one of t, since a killed child does not
// remove them.
func childCommand(t *testing.T, mode, dir string, flags ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append(flags, "-test.run=^TestChild$")...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "PACKAGES_TEST_DIR="+dir, "TMPDIR="+t.TempDir())
	return cmd
}

// child starts TestChild and waits until it prints "ready". It returns the text after that word, and end, which closes the child's
// stdin and waits for its exit.
func child(t *testing.T, mode, dir string) (cmd *exec.Cmd, end func(), ready string) {
	t.Helper()
	cmd = childCommand(t, mode, dir, "-test.v")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	for n := 0; !strings.Contains(ready, "ready"); ready = string(text[:n]) {
		got, err := out.Read(text[n:])
		if n += got; err != nil {
			t.Fatalf("the child ended early: %s", text[:n])
		}
	}
	_, ready, _ = strings.Cut(ready, "ready ")
	end = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	return cmd, end, strings.TrimSpace(ready)
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.NewTextHandler(testLog{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type testLog struct{ testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// newStore returns a store in a new directory. At the end of the test it checks that only the current generation is left.
func newStore(t *testing.T) *Store {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "packages"))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		checkWhole(t, s.dir)
	})
	return s
}

func begin(t testing.TB, s *Store) *Install {
	t.Helper()
	i, err := s.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestOpenIsCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(dir + "-link") }()
	first, second := openStore(t, dir), openStore(t, dir+"-link/.")
	if first != second {
		t.Error("two stores for one directory")
	}
	if g := first.Current(); g.Number != 0 || g.Site != "" || len(g.Packages) != 0 || g.Bytes() != 0 {
		t.Errorf("got %+v for no packages", g)
	}
	_ = first.Close()
	install(t, second, synthetic("a", 1))
	_ = second.Close()
	third := openStore(t, dir)
	if third == first {
		t.Error("the store was not closed")
	}
	g := third.Current()
	_ = third.Close()
	checkSite(t, g) // the generation stays usable after the store is closed
	if _, found := g.Find("A"); !found {
		t.Errorf("got %+v", g.Packages)
	}
	g.Release()
	checkWhole(t, dir)
}

func TestOpenNeedsADirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := writeFile(file, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file+"/packages", nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error that names %s", err, file)
	}
}

func TestUmask(t *testing.T) {
	t.Parallel()
	if out, err := childCommand(t, "umask", t.TempDir(), "-test.v").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
