// Package scratch counts and removes the files of runs that have no scratch mount of their own (without namespaces).
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
	// maxFilesUnmounted bounds the number of files of a run, so that they can be counted often enough.
	maxFilesUnmounted = 1 << 14
	// maxDepth bounds the nesting of directories; each level costs a descriptor while files are counted.
	maxDepth = 256
)

// Of lists the scratch directories of a lane in dir. There is at most one, unless the lane was killed.
func Of(dir string, lanePID int) []string {
	found, _ := filepath.Glob(fmt.Sprintf("%s/%d-*", dir, lanePID)) // the pattern is well formed
	return found
}

// Full says whether the files of a lane's worker, beside unlinked bytes, hold more than limit bytes and a sixteenth, or are too many or
// nested too deep to count. Because of the sixteenth, a program that writes one large file meets RLIMIT_FSIZE first, an error that it can handle.
func Full(dir string, lanePID int, limit, unlinked int64) bool {
	return Exceeds(Of(dir, lanePID), limit+limit/16-unlinked, maxFilesUnmounted)
}

// Exceeds says whether the files below some directories hold more than bytes, are more than files, or are nested too deep to count. It
// is true, too, for what cannot be read, whose size is not known; but false when Caddy or the system has no file descriptor left to count
// with now.
func Exceeds(dirs []string, bytes, files int64) bool {
	for _, dir := range dirs {
		err := walk(unix.AT_FDCWD, dir, 0, func(_ int, _ string, stat *unix.Stat_t) error {
			files--
			bytes -= stat.Blocks * 512
			if bytes < 0 || files < 0 {
				return errFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			return true
		}
	}
	return false
}

// errFull is walk's error for directories that are nested too deep. A visit may return it to end the walk.
var errFull = errors.New("scratch is full")

// RemoveOf removes the scratch directories of a lane. User code may have removed its own access to directories, so RemoveOf restores it
// first. What cannot be removed stays.
func RemoveOf(dir string, lanePID int) {
	for _, top := range Of(dir, lanePID) {
		_ = walk(unix.AT_FDCWD, top, 0, func(parent int, name string, stat *unix.Stat_t) error {
			if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
				restoreAccess(parent, name)
			}
			return nil
		})
		_ = os.RemoveAll(top)
	}
}

// restoreAccess gives the owner of a directory access to it. It goes through a descriptor (open(2), O_PATH), since user code may meanwhile
// have replaced the directory by a symbolic link.
func restoreAccess(parent int, name string) {
	handle, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = os.Chmod("/proc/self/fd/"+strconv.Itoa(handle), 0o700)
		_ = unix.Close(handle)
	}
}

// walk calls visit for a file and, if that is a directory, for everything below it. It follows no links, works below paths longer than
// PATH_MAX, and ignores files that are removed meanwhile. parent is a directory descriptor for name, as in openat(2); depth is 0. An
// error of visit ends the walk and is returned.
func walk(parent int, name string, depth int, visit func(parent int, name string, stat *unix.Stat_t) error) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(parent, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	if err := visit(parent, name, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if depth > maxDepth {
		return errFull
	}
	fd, err := openDir(parent, name)
	if errors.Is(err, unix.EACCES) { // made without access for its owner, as os.mkdir(path, 0) does
		restoreAccess(parent, name)
		fd, err = openDir(parent, name)
	}
	if err != nil {
		return ignoreGone(err)
	}
	here := os.NewFile(uintptr(fd), name)
	defer here.Close()
	for {
		names, err := here.Readdirnames(256)
		for _, name := range names {
			if err := walk(fd, name, depth+1, visit); err != nil {
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

func openDir(parent int, name string) (int, error) {
	return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // removed, or replaced, meanwhile
	}
	return err
}
