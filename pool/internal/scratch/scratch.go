// Package scratch counts and removes what runs leave where they have no mount of their own.
package scratch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxFilesUnmounted bounds the files of a run where they are counted instead of mounted: counting must keep up.
	maxFilesUnmounted = 1 << 14
	// maxDepth bounds nested directories there; each costs a descriptor while they are counted.
	maxDepth = 256
)

// Of lists the directories of a lane where lanes have no mount of their own; one at most, unless it was killed.
func Of(dir string, lanePID int) []string {
	found, _ := filepath.Glob(fmt.Sprintf("%s/%d-*", dir, lanePID)) // the pattern is well formed
	return found
}

// Full says whether a lane's worker has written more than limit bytes, or more or deeper than can be counted. A little
// more is let pass: a single file meets RLIMIT_FSIZE first, which the program can answer to.
func Full(dir string, lanePID int, limit int64) bool {
	limit += limit / 16
	var held, files int64
	for _, top := range Of(dir, lanePID) {
		err := Walk(unix.AT_FDCWD, top, 0, func(_ int, _ string, stat *unix.Stat_t) error {
			files++
			held += stat.Blocks * 512
			if held > limit || files > maxFilesUnmounted {
				return ErrFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) { // for want of descriptors: look again
			return true // full, or closed to us, and nobody can say what it holds
		}
	}
	return false
}

var ErrFull = errors.New("scratch is full")

// RemoveOf removes what a lane has left. User code may have closed directories to itself, and so to us.
func RemoveOf(dir string, lanePID int) {
	for _, top := range Of(dir, lanePID) {
		_ = Walk(unix.AT_FDCWD, top, 0, func(parent int, name string, stat *unix.Stat_t) error {
			if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
				return nil
			}
			// By a handle, since a name may have become a link meanwhile (open(2), O_PATH).
			handle, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				_ = os.Chmod("/proc/self/fd/"+strconv.Itoa(handle), 0o700)
				_ = unix.Close(handle)
			}
			return nil
		})
		_ = os.RemoveAll(top)
	}
}

// Walk visits a file and, when it is a directory, all that lies below, which may be deeper than a path can say and change
// meanwhile. It follows no links.
func Walk(parent int, name string, depth int, visit func(parent int, name string, stat *unix.Stat_t) error) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(parent, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	if err := visit(parent, name, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if depth > maxDepth {
		return ErrFull
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ignoreGone(err)
	}
	here := os.NewFile(uintptr(fd), name)
	defer here.Close()
	for {
		names, err := here.Readdirnames(256)
		for _, name := range names {
			if err := Walk(fd, name, depth+1, visit); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return ignoreGone(err)
		}
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // removed, or replaced, meanwhile
	}
	return err
}
