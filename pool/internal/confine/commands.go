package confine

import (
	"os"
	"path/filepath"
	"strings"
)

// Commands makes the commands python3 and python, in the PATH of programs, start the interpreter that runs the program, as in an activated
// virtual environment. The zero value is for an interpreter whose directory has both.
type Commands struct {
	wrapped []string // names that need a wrapper: missing in the interpreter's directory, or another interpreter there
	other   bool     // one of them is another interpreter there
}

const (
	// commandsTarget is the directory of the wrappers, with namespaces.
	commandsTarget = "/sandbox/bin"
	// CommandsDir is the directory of the wrappers below the pool's scratch directory, without namespaces.
	CommandsDir = "bin"
	// systemPath is the rest of PATH.
	systemPath = "/usr/local/bin:/usr/bin:/bin"
)

// FindCommands looks for python3 and python in the directory of an interpreter.
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
		case !os.SameFile(found, itself) && !isEnvironment(dir): // an environment may hold copies of the same interpreter
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

// path returns the PATH of user code. dir is the directory of the wrappers.
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

// wrapper returns a shell script that executes the interpreter. With a link instead, sys.executable would name the link.
func wrapper(executable string) string {
	return "#!/bin/sh\nexec '" + strings.ReplaceAll(executable, "'", `'\''`) + "' \"$@\"\n"
}

// Write makes dir with the wrappers, which every user may read and execute. It does nothing when none is needed.
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
