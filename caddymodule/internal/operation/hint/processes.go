package hint

import (
	"fmt"
	"strings"
)

// onProcesses returns the hint for a program that was refused a process or a thread: how many it may have.
func onProcesses(x exception, limits Limits) string {
	refused := strings.HasPrefix(x.message, "can't start new thread") ||
		x.is("BlockingIOError", "OSError") && strings.HasPrefix(x.message, "[Errno 11] ") && containsAny(x.block, "fork", "_execute_child", "Popen")
	if !refused {
		return ""
	}
	if limits.Processes > 0 {
		return fmt.Sprintf("A program may have %d processes and threads at once, with those of what it starts: use fewer (n_jobs, processes=, max_workers=), and end each before the next.", limits.Processes)
	}
	return "A program may have only so many processes and threads at once: use fewer (n_jobs, processes=, max_workers=), and end each before the next."
}

// FewerJobs says what to do about too much memory that several processes held together.
func FewerJobs(processes int) string {
	return fmt.Sprintf("There were %d processes: run fewer jobs at once (n_jobs=1, processes=, max_workers=), since each holds its own part.", processes)
}
