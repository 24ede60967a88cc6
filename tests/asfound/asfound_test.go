package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a command does to the machine is said, and its exit code is its own. The commands run one after the other: each is waited for with
// all children of this process.
func TestWhatACommandLeavesIsSaid(t *testing.T) {
	for _, c := range []struct {
		name, script string
		code         int
		left         []string // what each sentence contains
	}{
		{"nothing", "mkdir -p $TMPDIR/a/b && rm -r $TMPDIR/a; sleep 0.1 & exit 3", 3, nil},
		{"a signal", "kill -9 $$", 137, nil},
		{"a mode", "chmod 0700 $ROOT/srv/www", 0, []string{"/srv/www was drwxr-xr-x, owner "}},
		{"a mode of a directory for all", "chmod 0755 $ROOT/tmp", 0, []string{"/tmp was dtrwxrwxrwx, owner "}},
		{"a file", "touch $TMPDIR/file", 0, []string{"/file is left"}},
		{"a process", "setsid sleep 98 & exit 4", 4, []string{"is left: sleep 98"}},
		{"a process of a process", "(setsid sh -c 'sleep 98; true' &)", 0, []string{"is left: sh -c sleep 98; true", "is left: sleep 98"}},
		{"what everybody makes", "mkdir -m 0700 $ROOT/tmp/own/new $ROOT/srv/new; chmod 0700 $ROOT/tmp/own", 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for path, mode := range map[string]os.FileMode{"srv": 0o755, "srv/www": 0o755, "tmp": 0o777 | os.ModeSticky, "tmp/own": 0o755} {
				if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("ROOT", root)
			code, left, err := run(root, []string{"sh", "-c", c.script})
			if err != nil || code != c.code || len(left) != len(c.left) {
				t.Fatalf("exit code %d, %q, %v", code, left, err)
			}
			for _, want := range c.left {
				if !slices.ContainsFunc(left, func(said string) bool { return strings.Contains(said, want) }) {
					t.Errorf("%q is not in %q", want, left)
				}
			}
		})
	}
}

func TestDevicesAndMountsAreLookedAt(t *testing.T) {
	t.Parallel()
	now, err := look("/")
	if err != nil {
		t.Fatal(err)
	}
	if null := now.entries["/dev/null"]; !strings.HasPrefix(null, "Dcrw-rw-rw-, owner ") || !strings.HasSuffix(null, ", device 103") {
		t.Errorf("/dev/null is %q", null)
	}
	if tmp := now.entries["/tmp"]; !strings.HasPrefix(tmp, "dtrwxrwxrwx, owner ") {
		t.Errorf("/tmp is %s, and everybody should be able to write to it: chmod 1777 /tmp", tmp)
	}
	for path := range now.entries {
		if strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/tmp/") || strings.HasPrefix(path, "/dev/pts/") || strings.Count(path, "/") > depth {
			t.Fatalf("%s is looked at", path)
		}
	}
	if !now.mounts["/proc"] {
		t.Errorf("/proc is not among the mounts %v", now.mounts)
	}
	before := state{
		entries: map[string]string{"/dev/null": "Dcrw-rw-rw-, owner 0:0, device 103", "/srv": "drwxr-xr-x, owner 0:0", "/srv/www/old": "drwxr-xr-x, owner 0:0"},
		mounts:  map[string]bool{"/proc": true, "/mnt": true},
	}
	after := state{entries: map[string]string{"/new": "drwxr-xr-x, owner 0:0"}, mounts: map[string]bool{"/proc": true, "/srv/x": true}}
	want := []string{
		"/dev/null was Dcrw-rw-rw-, owner 0:0, device 103 and is gone", "/srv was drwxr-xr-x, owner 0:0 and is gone",
		"/srv/x is mounted", "/mnt is no longer mounted",
	}
	if got := before.changes(after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
