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
}

// maxSeen bounds the files that are remembered. A run may have as many files with a name, and a program that has more without one is
// over its limit already.
const maxSeen = 1 << 15

// Bytes returns what files without a name hold that once had one below top, or were made there without (O_TMPFILE in open(2)). processes
// are directories in /proc; what Caddy may not see in them counts as nothing.
func (u *Unlinked) Bytes(processes []string, top string) (sum int64) {
	if u.seen == nil || len(u.seen) > maxSeen {
		u.seen = map[uint64]int64{}
	}
	open, mapped := map[uint64]int64{}, map[uint64]int64{}
	for _, process := range processes {
		u.addOpen(open, process+"/fd/", top)
		if text, err := os.ReadFile(process + "/maps"); err == nil {
			u.addMapped(mapped, text, top)
		}
	}
	for inode, size := range open { // exact, whatever of it is mapped
		delete(mapped, inode)
		sum += size
	}
	for inode, size := range mapped {
		sum += max(size, u.seen[inode])
		u.seen[inode] = max(size, u.seen[inode])
	}
	return sum
}

func (u *Unlinked) addOpen(held map[uint64]int64, dir, top string) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		path := dir + name.Name()
		if target, err := os.Readlink(path); err != nil || !strings.HasPrefix(target, top+"/") {
			continue
		}
		var stat unix.Stat_t
		if unix.Stat(path, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		u.seen[stat.Ino] = stat.Blocks * 512
		if stat.Nlink == 0 {
			held[stat.Ino] = stat.Blocks * 512
		}
	}
}

// addMapped reads lines as of /proc/PID/maps (proc_pid_maps(5)): the range, rights, offset, device, inode and path.
func (*Unlinked) addMapped(held map[uint64]int64, maps []byte, top string) {
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
