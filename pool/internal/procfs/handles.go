package procfs

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
)

// Handles counts open descriptors that stand for memory of the kernel, which is in no size of a process.
type Handles struct {
	Sockets int
	// Watches is how many descriptors the process's epoll instances watch (epoll(7)).
	Watches int
}

// ReadHandles looks through the descriptors of a process, by its Status.Dir. It counts watches until it has found most of them: a list of
// millions takes seconds to read. other, if not nil, is called for each other descriptor, with its path in /proc and what that links to.
// ok is false when the process has ended, or when we may not look.
func ReadHandles(dir string, most int, other func(path, target string)) (h Handles, ok bool) {
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
		case target == "anon_inode:[eventpoll]" && h.Watches < most:
			h.Watches += countWatches(dir+"/fdinfo/"+name.Name(), most-h.Watches)
		case other != nil:
			other(path, target)
		}
	}
	return h, true
}

// countWatches counts the lines of an epoll instance's fdinfo that begin with "tfd:" (proc_pid_fdinfo(5)).
func countWatches(path string, most int) (n int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return scanWatches(f, most)
}

func scanWatches(r io.Reader, most int) (n int) {
	for lines := bufio.NewScanner(r); n < most && lines.Scan(); {
		if bytes.HasPrefix(lines.Bytes(), []byte("tfd:")) {
			n++
		}
	}
	return n
}
