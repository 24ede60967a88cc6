package procfs

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
)

// Handles counts what of a process stands for memory of the kernel, which is in no size of a process.
type Handles struct {
	Sockets int
	// Watches is how many descriptors the process's epoll instances watch (epoll(7)).
	Watches int
	// Locks is how many locks the process has on files (fcntl_locking(2), flock(2)); a file that is open twice counts twice.
	Locks int
	// Mappings is how many ranges of its addresses differ from their neighbours (mmap(2), mprotect(2)).
	Mappings int
}

// FileVisitor is told of the files that a process has open or mapped.
type FileVisitor interface {
	// Descriptor is called for each descriptor of a file, with its path in /proc and what that links to.
	Descriptor(path, target string)
	// Mapping is called for each line of /proc/PID/maps (proc_pid_maps(5)), and must not keep it.
	Mapping(line []byte)
}

// ReadHandles looks through the descriptors and mappings of a process, by its Status.Dir. It counts up to most of each, but all
// sockets: a list of millions takes seconds to read. visitor may be nil. ok is false when the process has ended, or when we may not look.
func ReadHandles(dir string, most Handles, visitor FileVisitor) (h Handles, ok bool) {
	names, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return h, false
	}
	for _, name := range names {
		path := dir + "/fd/" + name.Name()
		target, err := os.Readlink(path)
		switch {
		case err != nil: // closed by now
		case strings.HasPrefix(target, "socket:"):
			h.Sockets++
		case target == "anon_inode:[eventpoll]" && h.Watches < most.Watches:
			h.Watches += countLines(dir+"/fdinfo/"+name.Name(), "tfd:", most.Watches-h.Watches, nil)
		case strings.HasPrefix(target, "/"):
			if h.Locks < most.Locks {
				h.Locks += countLines(dir+"/fdinfo/"+name.Name(), "lock:", most.Locks-h.Locks, nil)
			}
			if visitor != nil {
				visitor.Descriptor(path, target)
			}
		}
	}
	var each func(line []byte)
	if visitor != nil {
		each = visitor.Mapping
	}
	h.Mappings = countLines(dir+"/maps", "", most.Mappings, each)
	return h, true
}

// countLines counts the lines of a file in /proc that begin with prefix (proc_pid_fdinfo(5), proc_pid_maps(5)), and calls each, if not
// nil, for them.
func countLines(path, prefix string, most int, each func(line []byte)) (n int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return scanLines(f, prefix, most, each)
}

func scanLines(r io.Reader, prefix string, most int, each func(line []byte)) (n int) {
	for lines := bufio.NewScanner(r); n < most && lines.Scan(); {
		if bytes.HasPrefix(lines.Bytes(), []byte(prefix)) {
			n++
			if each != nil {
				each(lines.Bytes())
			}
		}
	}
	return n
}
