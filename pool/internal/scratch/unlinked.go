package scratch

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unlinked counts files that have no name any more, and so are not below a directory: they hold blocks as long as a descriptor or a
// mapping does. It is a procfs.FileVisitor of the processes of one run. Not safe for concurrent use.
type Unlinked struct {
	top string
	// seen has the largest size of files by inode, in bytes. A mapping does not tell how large its file is, but the file was open before.
	seen map[uint64]int64
	// open and mapped have the sizes of those that descriptors and mappings hold, since the last call of Bytes.
	open, mapped map[uint64]int64
}

// maxSeen bounds the files that are remembered. A run may have as many files with a name, and a program that has more without one is
// over its limit already.
const maxSeen = 1 << 15

// NewUnlinked returns an Unlinked for the files below top.
func NewUnlinked(top string) *Unlinked {
	return &Unlinked{top: top, seen: map[uint64]int64{}, open: map[uint64]int64{}, mapped: map[uint64]int64{}}
}

// Descriptor takes one descriptor of a process into account.
func (u *Unlinked) Descriptor(path, target string) {
	var stat unix.Stat_t
	if !strings.HasPrefix(target, u.top+"/") || unix.Stat(path, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	u.seen[stat.Ino] = stat.Blocks * 512
	if stat.Nlink == 0 {
		u.open[stat.Ino] = stat.Blocks * 512
	}
}

// Mapping takes one mapping into account. Its line has the range, rights, offset, device, inode and path.
func (u *Unlinked) Mapping(line []byte) {
	at := bytes.Index(line, []byte(" "+u.top+"/"))
	if at < 0 || !bytes.HasSuffix(line, []byte(" (deleted)")) {
		return
	}
	fields := strings.Fields(string(line[:at]))
	if len(fields) != 5 {
		return
	}
	from, to, _ := strings.Cut(fields[0], "-")
	first, _ := strconv.ParseInt(from, 16, 64)
	last, _ := strconv.ParseInt(to, 16, 64)
	offset, _ := strconv.ParseInt(fields[2], 16, 64)
	inode, err := strconv.ParseUint(fields[4], 10, 64)
	if err == nil {
		u.mapped[inode] = max(u.mapped[inode], offset+last-first)
	}
}

// Bytes returns what files without a name hold that once had one below the directory, or were made there without (O_TMPFILE in open(2)):
// those of the descriptors and mappings since the last call.
func (u *Unlinked) Bytes() (sum int64) {
	for inode, size := range u.open { // exact, whatever of it is mapped
		delete(u.mapped, inode)
		sum += size
	}
	for inode, size := range u.mapped {
		sum += max(size, u.seen[inode])
		u.seen[inode] = max(size, u.seen[inode])
	}
	clear(u.open)
	clear(u.mapped)
	if len(u.seen) > maxSeen {
		clear(u.seen)
	}
	return sum
}
