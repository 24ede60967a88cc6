package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// depth is how far below a root directories are looked at.
const depth = 3

// state is what a system has of directories and devices, each with its mode and owner, and of mounts.
type state struct {
	entries map[string]string
	mounts  map[string]bool
}

// look reads the state of what is below a root. What comes and goes by itself is left out: processes, what the kernel shows of itself,
// terminals, and the entries of directories where everybody makes what he likes.
func look(root string) (state, error) {
	s := state{entries: map[string]string{}, mounts: map[string]bool{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		below := "/" + strings.TrimPrefix(strings.TrimPrefix(path, filepath.Clean(root)), "/")
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return nil // it is gone meanwhile, or nothing that this user could change
		case err != nil:
			return err
		case !d.IsDir() && d.Type()&fs.ModeDevice == 0:
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone meanwhile
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			s.entries[path] = fmt.Sprintf("%s, owner %d:%d", info.Mode(), stat.Uid, stat.Gid)
			if info.Mode()&fs.ModeDevice != 0 {
				s.entries[path] += fmt.Sprintf(", device %x", stat.Rdev)
			}
		}
		switch {
		case slices.Contains([]string{"/proc", "/sys", "/dev/pts", "/tmp", "/var/tmp", "/dev/shm"}, below), strings.Count(below, "/") >= depth:
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return nil
	})
	if err != nil {
		return state{}, fmt.Errorf("looking at %s: %w", root, err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return state{}, fmt.Errorf("reading the mounts: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			s.mounts[fields[4]] = true
		}
	}
	return s, nil
}

// changes says what is no longer as it was. New directories are no change: this machine may have other users, too.
func (s state) changes(now state) (said []string) {
	for _, path := range slices.Sorted(maps.Keys(s.entries)) {
		was, is := s.entries[path], now.entries[path]
		switch {
		case is == was:
		case is != "":
			said = append(said, fmt.Sprintf("%s was %s and is %s", path, was, is))
		case strings.Contains(was, "device") || filepath.Dir(path) == "/":
			said = append(said, fmt.Sprintf("%s was %s and is gone", path, was))
		}
	}
	for _, at := range slices.Sorted(maps.Keys(now.mounts)) {
		if !s.mounts[at] {
			said = append(said, at+" is mounted")
		}
	}
	for _, at := range slices.Sorted(maps.Keys(s.mounts)) {
		if !now.mounts[at] {
			said = append(said, at+" is no longer mounted")
		}
	}
	return said
}
