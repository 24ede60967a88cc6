package pool

import (
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

// Memory of the kernel that a run can hold beyond the sizes of its processes. As many sockets, watches, locks and mappings as programs
// need cost nothing; whoever has more is counted as if each was used to the full.
const (
	freeSockets  = 128
	freeWatches  = 4096
	watchBytes   = 4 << 10 // a few hundred in truth, but see newWatchRate
	freeLocks    = 4096
	freeMappings = 1 << 15
	objectBytes  = 256 // of a lock, or of a mapping with its place in the process's tree of them
)

// watchRate says what the epoll watches of a run count as: the first free of them nothing, and each beyond bytes.
type watchRate struct{ free, bytes int64 }

// newWatchRate returns the rate for a pool of so many runs at once, each with a limit of memory in bytes. Where runs have Caddy's user
// (shared), Caddy could not accept a connection any more when they had taken all watches of that user, a twenty-fifth of the machine's
// memory (epoll(7)): so all runs together can hold half of them, and what they add between two looks.
func newWatchRate(limit int64, shared bool, runs int) watchRate {
	ofUser, ok := procfs.Setting("fs/epoll/max_user_watches")
	if !shared || !ok {
		return watchRate{freeWatches, watchBytes}
	}
	return watchRateOf(limit, ofUser/2/int64(runs))
}

// watchRateOf returns the rate with which a run reaches its limit of memory at share watches, or before.
func watchRateOf(limit, share int64) watchRate {
	free := min(freeWatches, share/2)
	return watchRate{free, max(watchBytes, limit/max(1, share-free))}
}

// socketBytes is what a socket may hold: its buffer, the size of which programs cannot change (net.core.wmem_default in socket(7)), and
// the last packet, which may be half as large.
var socketBytes = sync.OnceValue(func() int64 {
	size, _ := procfs.Setting("net/core/wmem_default")
	return max(size, 208<<10) * 3 / 2
})

// memory is what w's processes (tree), their descriptors and memfds hold, in bytes. A sum above limit is exact but for sockets and
// watches; see treeMemory.
//
// Where runs have no scratch mount of their own but directories below scratchDir, memory also sees to w.unlinked.
func (w *worker) memory(tree []int, limit int64, watches watchRate, scratchDir string) (held int64) {
	id := w.lane.uid
	if w.lane.template.plan.World == confine.WorldNamespaces {
		id = 0 // their user namespaces are Caddy's to look into
	}
	procfs.As(id, func() { held = w.measure(tree, limit, watches, scratchDir) })
	return held
}

func (w *worker) measure(tree []int, limit int64, watches watchRate, scratchDir string) int64 {
	processes := make([]procfs.Status, len(tree))
	for i, pid := range tree {
		processes[i] = procfs.ReadStatus(pid)
	}
	files := w.lane.asked.memfdBytes()
	if files > 0 {
		files = max(0, files-mappedMemfds(processes))
	}
	if time.Now().After(w.handlesDue) {
		begin := time.Now()
		if scratchDir == "" {
			w.handles = handleMemory(processes, limit, watches, nil)
		} else {
			if w.files == nil {
				w.files = scratch.NewUnlinked(scratchDir)
			}
			w.handles = handleMemory(processes, limit, watches, w.files)
			w.unlinked = w.files.Bytes()
		}
		w.handlesDue = time.Now().Add(2 * time.Since(begin)) // at most a third of the time is spent on it
	}
	return files + w.handles + treeMemory(w.lane.pid, processes, limit-files-w.handles)
}

// handleMemory is what the descriptors, locks and mappings of processes stand for, in bytes; or, when this is more than limit, as much of
// it as says so. A process of which Caddy may not see the descriptors counts as having none. visitor is procfs.ReadHandles's.
func handleMemory(processes []procfs.Status, limit int64, rate watchRate, visitor procfs.FileVisitor) int64 {
	var sockets, watches, locks, mappings, sum int64
	most := procfs.Handles{ // more of one kind are too many
		Watches: int(rate.free+limit/rate.bytes) + 1, Locks: int(freeLocks+limit/objectBytes) + 1, Mappings: int(freeMappings+limit/objectBytes) + 1,
	}
	for _, p := range processes {
		h, _ := procfs.ReadHandles(p.Dir, most, visitor)
		sockets += int64(h.Sockets)
		watches += int64(h.Watches)
		locks += int64(h.Locks)
		mappings += int64(h.Mappings)
		sum = max(0, sockets-freeSockets)*socketBytes() + max(0, watches-rate.free)*rate.bytes +
			max(0, locks-freeLocks)*objectBytes + max(0, mappings-freeMappings)*objectBytes
		if sum > limit {
			break
		}
	}
	return sum
}

func dirsOf(processes []procfs.Status) []string {
	dirs := make([]string, len(processes))
	for i, p := range processes {
		dirs[i] = p.Dir
	}
	return dirs
}

// treeMemory returns what processes hold, in bytes: all descendants of a lane. Resident sizes count a page once for each process that
// shares it, so a sum above limit is computed again from proportional sizes, which are exact but slow to read (proc(5)).
func treeMemory(lanePID int, processes []procfs.Status, limit int64) int64 {
	var resident, tables, mapped, sharedResident int64
	for _, p := range processes {
		resident += p.Resident
		tables += p.Tables
		mapped += p.Mapped
		sharedResident += p.SharedResident
	}
	var hidden int64
	if mapped > limit {
		hidden = max(0, procfs.SharedMappings(dirsOf(processes))-sharedResident)
	}
	if held := resident + tables + hidden; held <= limit || len(processes) == 1 {
		return held
	}
	forked := procfs.ReadStatus(lanePID).Anonymous
	var proportional int64
	for _, p := range processes {
		share, ok := procfs.ReadProportional(p.Dir)
		if !ok { // it has ended, or belongs to another user and may not be read: estimate what it has written since the fork
			share = max(0, p.Anonymous-forked)
		}
		proportional += share
	}
	return proportional + tables + hidden
}
