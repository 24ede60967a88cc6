package scratch

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unlinked counts files that have no name any more, and so are not below a directory: they hold blocks as long as a descriptor or a
// mapping does. The zero value is ready for the processes of one run. Not safe for concurrent use.
type Unlinked struct {
	// seen has the largest size of files by inode, in bytes. A mapping does not tell how large its file is, but the file was open before.
	seen map[uint64]int64
	// open has the sizes of those that descriptors hold, since the last call of Bytes.
	open map[uint64]int64
}

// maxSeen bounds the files that are remembered. A run may have as many files with a name, and a program that has more without one is
// over its limit already.
const maxSeen = 1 << 15

func (u *Unlinked) begin() {
	if u.seen == nil || len(u.seen) > maxSeen {
		u.seen = map[uint64]int64{}
	}
	if u.open == nil {
		u.open = map[uint64]int64{}
	}
}

// Descriptor takes one descriptor of a process into account: its path in /proc and what that links to. Only files below top matter.
func (u *Unlinked) Descriptor(path, target, top string) {
	var stat unix.Stat_t
	if !strings.HasPrefix(target, top+"/") || unix.Stat(path, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	u.begin()
	u.seen[stat.Ino] = stat.Blocks * 512
	if stat.Nlink == 0 {
		u.open[stat.Ino] = stat.Blocks * 512
	}
}

// Bytes returns what files without a name hold that once had one below top, or were made there without (O_TMPFILE in open(2)): those of
// the descriptors since the last call, and those that processes map. These are directories in /proc; what Caddy may not see in them
// counts as nothing.
func (u *Unlinked) Bytes(processes []string, top string) (sum int64) {
	u.begin()
	mapped := map[uint64]int64{}
	for _, process := range processes {
		if text, err := os.ReadFile(process + "/maps"); err == nil {
			addMapped(mapped, text, top)
		}
	}
	for inode, size := range u.open { // exact, whatever of it is mapped
		delete(mapped, inode)
		sum += size
	}
	clear(u.open)
	for inode, size := range mapped {
		sum += max(size, u.seen[inode])
		u.seen[inode] = max(size, u.seen[inode])
	}
	return sum
}

// addMapped reads lines as of /proc/PID/maps (proc_pid_maps(5)): the range, rights, offset, device, inode and path.
func addMapped(held map[uint64]int64, maps []byte, top string) {
	for line := range bytes.Lines(maps) {
		at := bytes.Index(line, []byte(" "+top+"/"))
		if at < 0 || !bytes.HasSuffix(line, []byte(" (deleted)\n")) {
			continue
		}
		fields := strings.Fields(string(line[:at]))
		if len(fields) != 5 {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		first, _ := strconv.ParseInt(from, 16, 64)
		last, _ := strconv.ParseInt(to, 16, 64)
		offset, _ := strconv.ParseInt(fields[2], 16, 64)
		inode, err := strconv.ParseUint(fields[4], 10, 64)
		if err == nil {
			held[inode] = max(held[inode], offset+last-first)
		}
	}
}
