// Package procfs reads facts about processes from /proc (proc(5)). A process that has ended, or that Caddy may not
// read, counts as holding nothing.
package procfs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// Status is what /proc/PID/status says (proc(5)); sizes in bytes.
type Status struct {
	// Dir is the directory in /proc that tells of the process's memory and descriptors: /proc/PID, or that of another thread when the
	// first one has ended, since that shows nothing any more.
	Dir            string
	Uid            int // -1 when the process has ended
	Threads        int
	Mapped         int64
	Resident       int64 // swapped out or not
	Anonymous      int64
	SharedResident int64
	Tables         int64 // page tables, which the other sizes do not include
}

// ReadStatus reads /proc/PID/status. For a process that has ended Uid is -1, and all but Dir zero.
func ReadStatus(pid int) Status {
	s := readStatus("/proc/" + strconv.Itoa(pid))
	if s.Mapped > 0 || s.Threads < 2 {
		return s
	}
	tasks, err := os.ReadDir(s.Dir + "/task")
	if err != nil {
		return s
	}
	for _, task := range tasks {
		if of := readStatus(s.Dir + "/task/" + task.Name()); of.Mapped > 0 {
			return of
		}
	}
	return s
}

func readStatus(dir string) Status {
	s := Status{Dir: dir, Uid: -1}
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return s
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		number, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "Uid":
			s.Uid = int(number)
		case "Threads":
			s.Threads = int(number)
		case "VmSize":
			s.Mapped = number << 10
		case "VmRSS", "VmSwap":
			s.Resident += number << 10
		case "RssAnon":
			s.Anonymous = number << 10
		case "RssShmem":
			s.SharedResident = number << 10
		case "VmPTE":
			s.Tables = number << 10
		}
	}
	return s
}

// ReadProportional returns what smaps_rollup in a Status.Dir says a process holds, in bytes, swapped out or not: a page that n processes
// share counts as 1/n of it. ok is false when the process has ended, or when we may not look.
func ReadProportional(dir string) (bytes int64, ok bool) {
	text, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return 0, false
	}
	return proportional(string(text))
}

// proportional adds up the proportional sizes of a smaps_rollup.
func proportional(text string) (bytes int64, ok bool) {
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "Pss" && name != "SwapPss" {
			continue
		}
		size, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		number, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return 0, false
		}
		bytes += number << 10
		ok = true
	}
	return bytes, ok
}

// ReadStat returns the fields of /proc/PID/stat from the third one on: the state, the parent's pid and so on.
func ReadStat(pid int) ([]string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])), nil // the name may contain blanks and ")"
}

// Session returns the number of a process's session (setsid(2)), 0 when it has ended.
func Session(pid int) int {
	fields, err := ReadStat(pid)
	if err != nil || len(fields) < 4 {
		return 0
	}
	session, _ := strconv.Atoi(fields[3]) // the sixth of the file
	return session
}

// Setting returns a number that the kernel is set to, by its path below /proc/sys (proc_sys(5)). ok is false when it has no such setting.
func Setting(name string) (value int64, ok bool) {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, false
	}
	value, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return value, err == nil
}

// clockTick is the unit of times in /proc, the same on every architecture that Go runs on (proc(5)).
const clockTick = 10 * time.Millisecond

// CPUTime returns the sum of the processor time that the processes, and the children that they have waited for, have used so far.
func CPUTime(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		fields, err := ReadStat(pid)
		if err != nil {
			continue
		}
		for i := 11; i < min(len(fields), 15); i++ { // the fields 14 to 17 of the file
			ticks, _ := strconv.ParseInt(fields[i], 10, 64)
			sum += time.Duration(ticks) * clockTick
		}
	}
	return sum
}

// SharedMappings returns how many bytes of shared anonymous memory the processes map, each mapping counted once. Such pages can stay in
// memory although no process shows them as resident, so the whole size of a mapping counts. dirs are the processes' Status.Dir.
func SharedMappings(dirs []string) (sum int64) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		text, err := os.ReadFile(dir + "/maps")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 6 || !strings.HasSuffix(fields[1], "s") || !strings.HasPrefix(fields[5], "/dev/zero") {
				continue
			}
			from, to, _ := strings.Cut(fields[0], "-")
			if key := fields[4] + " " + fields[2]; !seen[key] {
				seen[key] = true
				first, _ := strconv.ParseInt(from, 16, 64)
				last, _ := strconv.ParseInt(to, 16, 64)
				sum += last - first
			}
		}
	}
	return sum
}

// Descendants lists the pids of all descendants of pid, from /proc/PID/task/TID/children (proc(5)), without pid itself.
func Descendants(pid int) []int {
	var found []int
	for queue := []int{pid}; len(queue) > 0; {
		next := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		dir := "/proc/" + strconv.Itoa(next) + "/task"
		tasks, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, task := range tasks {
			text, err := os.ReadFile(dir + "/" + task.Name() + "/children")
			if err != nil {
				continue
			}
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil {
					found = append(found, child)
					queue = append(queue, child)
				}
			}
		}
	}
	return found
}
