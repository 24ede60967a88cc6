package confine

import (
	"os"
	"path/filepath"
	"strings"
)

// Commands says where the processes that a program starts find its own interpreter by the names python3 and python, as in
// an activated virtual environment.
type Commands struct {
	wrapped []string // names that the interpreter's directory does not have, or has for another interpreter
	other   bool     // it has one of them for another interpreter
}

const (
	// commandsTarget is where the wrapped names lie in a root of our own.
	commandsTarget = "/sandbox/bin"
	// CommandsDir is where they lie below the directory of scratch otherwise.
	CommandsDir = "bin"
	// systemPath is where all other programs are.
	systemPath = "/usr/local/bin:/usr/bin:/bin"
)

// FindCommands looks for the names beside an interpreter.
func FindCommands(executable string) (c Commands) {
	dir := filepath.Dir(executable)
	itself, err := os.Stat(executable)
	if err != nil {
		return c
	}
	for _, name := range []string{"python3", "python"} {
		found, err := os.Stat(filepath.Join(dir, name))
		switch {
		case err != nil:
			c.wrapped = append(c.wrapped, name)
		case !os.SameFile(found, itself) && !isEnvironment(dir): // which may have copies of one interpreter
			c.wrapped, c.other = append(c.wrapped, name), true
		}
	}
	return c
}

// isEnvironment says whether the programs in dir are those of a virtual environment (Python's site module).
func isEnvironment(dir string) bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(dir), "pyvenv.cfg"))
	return err == nil
}

// path is the PATH of user code; the wrapped names lie in dir.
func (c Commands) path(executable, dir string) string {
	entries := []string{filepath.Dir(executable)}
	switch {
	case c.other:
		entries = append([]string{dir}, entries...)
	case len(c.wrapped) > 0:
		entries = append(entries, dir)
	}
	for entry := range strings.SplitSeq(systemPath, ":") {
		if entry != filepath.Dir(executable) {
			entries = append(entries, entry)
		}
	}
	return strings.Join(entries, ":")
}

// wrapper is a program that becomes the interpreter. A link would not do: the interpreter takes the name by which it was
// started for sys.executable.
func wrapper(executable string) string {
	return "#!/bin/sh\nexec '" + strings.ReplaceAll(executable, "'", `'\''`) + "' \"$@\"\n"
}

// Write makes the wrapped names in dir, for everybody to read.
func (c Commands) Write(executable, dir string) error {
	if len(c.wrapped) == 0 {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range c.wrapped {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(wrapper(executable)), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o755)
}
