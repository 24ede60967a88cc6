package install

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// slowInterpreter makes an interpreter that answers about pip only once open is called. asked returns how often it was asked.
func slowInterpreter(t *testing.T) (executable string, open func(), asked func() int) {
	t.Helper()
	dir := t.TempDir()
	gate, count := filepath.Join(dir, "gate"), filepath.Join(dir, "count")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	executable = filepath.Join(dir, "python")
	script := "#!/bin/sh\necho asked >> " + count + "\nread line < " + gate + "\n" +
		`echo '{"version": "23.2", "wheel": "", "default_index": "https://pypi.org/simple", "list": "", "distributions": {"One_Two": "1.0"}}'` + "\n"
	if err := os.WriteFile(executable, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return executable, func() {
			if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil {
				t.Error(err)
			}
		}, func() int {
			text, _ := os.ReadFile(count)
			return strings.Count(string(text), "asked")
		}
}

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for begin := time.Now(); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("not within 10 s")
		}
	}
}

// While the interpreter is slow to answer about pip, concurrent callers share one question, and a caller who gives up returns at once.
func TestSlowInterpreterIsAskedOnce(t *testing.T) {
	t.Parallel()
	executable, open, asked := slowInterpreter(t)
	store, err := packages.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := New(Host{Store: store, Python: process.Interpreter{Executable: executable}})
	defer s.Close()

	const callers = 8
	ended := make(chan error, callers)
	for range callers {
		go func() {
			_, _, interpreter, err := s.InstalledPackages(t.Context())
			if err == nil && interpreter["one-two"] != "1.0" {
				err = errors.New("one-two is not there")
			}
			ended <- err
		}()
	}
	waitUntil(t, func() bool { return asked() == 1 })
	gone := errors.New("gone")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(gone)
	if _, _, _, err := s.InstalledPackages(ctx); !errors.Is(err, gone) {
		t.Errorf("who has given up gets %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it has not answered, and somebody got %v", err)
	default:
	}
	open()
	for range callers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if n := asked(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	if _, err := s.PipConfig(t.Context()); err != nil || asked() != 1 {
		t.Errorf("a moment later: %v, asked %d times", err, asked())
	}
}

// Close ends a question to an interpreter that does not answer, and does not wait for the answer.
func TestCloseEndsTheQuestion(t *testing.T) {
	t.Parallel()
	executable, _, asked := slowInterpreter(t)
	s := New(Host{Python: process.Interpreter{Executable: executable}})
	ended := make(chan error, 1)
	go func() {
		_, err := s.PipConfig(t.Context())
		ended <- err
	}()
	waitUntil(t, func() bool { return asked() == 1 })
	s.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := s.PipConfig(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
}
