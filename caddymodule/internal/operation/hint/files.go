package hint

import (
	"regexp"
	"strings"
)

var (
	// refusedPath matches the message about a path that a program may not read or write.
	refusedPath = regexp.MustCompile(`^\[Errno (?:1|13|30)\] [A-Za-z -]+: '/`)
	// refusedFile matches what commands print about such a path.
	refusedFile = regexp.MustCompile(`(?m)(?:/.*|')(?:: |' : )?(?:Read-only file system|Permission denied)$`)
	// absentPath matches the message about a path that does not exist.
	absentPath = regexp.MustCompile(`^\[Errno 2\] [A-Za-z ]+: '([^'\n]+)'`)
	// commandName matches a command's name that a hint may repeat: it is no path.
	commandName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}$`)
)

// onFiles returns the hint about a path that is closed or missing: where a program can write, and that it begins with no files.
func onFiles(e End, x exception) string {
	switch {
	case x.is("PermissionError", "OSError", "error") && refusedPath.MatchString(x.message),
		x.is("CalledProcessError") && refusedFile.MatchString(strings.TrimSuffix(x.chain, x.block)):
		return "That path is closed to programs: they can write to the working directory and below what $TMPDIR names. Use a relative path, or one from tempfile."
	case !x.is("FileNotFoundError"):
		return ""
	}
	found := absentPath.FindStringSubmatch(x.message)
	switch {
	case found == nil:
		return ""
	case containsAny(x.block, "_execute_child", "in _posix_spawn", "in execv"):
		if commandName.MatchString(found[1]) {
			return "The command " + found[1] + " is not installed here: do it in Python instead."
		}
		return ""
	case strings.HasPrefix(found[1], "/"):
		return "There is nothing at that path: a program can read what Python needs, and has the working directory and what $TMPDIR names for files of its own, which are empty at first. Use relative paths, and put what the program is to read into the code."
	case e.Kernel:
		return ""
	}
	return "Nothing is kept from one execution to the next, and each begins in an empty working directory: make the file in the same program, or put its content into the code or stdin."
}

// onInput returns the hint about input() at the end of standard input.
func onInput(e End, x exception) string {
	if e.Kernel || !x.is("EOFError") || x.message != "EOF when reading a line" {
		return ""
	}
	if e.Stdin {
		return "The code asked for more lines than stdin had: send all of them in stdin, with a line break after each."
	}
	return "Nobody can answer input() here: send what it is to read in stdin, a line for each call, or put the values into the code."
}
