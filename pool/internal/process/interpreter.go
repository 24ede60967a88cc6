package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/python"
)

// Interpreter is a Python found on this system, as it describes itself.
type Interpreter struct {
	// Executable is the absolute path of the interpreter itself, not of a shim (such as pyenv's) that starts it.
	Executable string `json:"executable"`
	// Version is its version, such as "3.11.7".
	Version string `json:"version"`

	Roots     []string // sys.prefix and its kin, with links resolved
	paths     []string // its entries of sys.path
	libraries []string // directories of shared libraries that it has loaded
	Tag       string   // equal for interpreters that can share installed packages: its ABI, and a hash of paths
	Modules   []string // names of the modules of the standard library, sorted
	Commands  confine.Commands
}

// ProbeTimeout bounds one question to the interpreter. It is generous: a shim may start several shells on a busy machine.
const ProbeTimeout = 20 * time.Second

// FindInterpreter runs the interpreter that a configuration names, a path or a name on PATH, and returns its description.
func FindInterpreter(ctx context.Context, name string) (Interpreter, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return Interpreter{}, fmt.Errorf("python %q was not found: install Python 3.10 or later, or set python to the path of one", name)
	}
	ctx, cancel := context.WithTimeout(ctx, ProbeTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-I", "-c", Source("probe"))
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s", ProbeTimeout)
		}
		return Interpreter{}, fmt.Errorf("python %q does not start (%w%s): set python to an interpreter that runs, version 3.10 or later",
			name, err, LastLine(stderr.String()))
	}
	var found struct {
		Executable, Version, Implementation string
		Major, Minor                        int
		Roots, Paths, Libraries, Modules    []string
		ABI                                 string
	}
	if err := json.Unmarshal(stdout.Bytes(), &found); err != nil || !filepath.IsAbs(found.Executable) {
		return Interpreter{}, fmt.Errorf("python %q does not answer as a Python interpreter: set python to CPython 3.10 or later", name)
	}
	if found.Implementation != "cpython" {
		return Interpreter{}, fmt.Errorf("python %q is %s: set python to CPython 3.10 or later", name, found.Implementation)
	}
	if found.Major != 3 || found.Minor < 10 {
		return Interpreter{}, fmt.Errorf("python %q is version %s, which is too old: set python to 3.10 or later", name, found.Version)
	}
	installation := sha256.Sum256([]byte(strings.Join(found.Paths, "\n")))
	return Interpreter{Executable: found.Executable, Version: found.Version,
		Roots: found.Roots, paths: found.Paths, libraries: found.Libraries, Modules: found.Modules, Commands: confine.FindCommands(found.Executable),
		Tag: fmt.Sprintf("%s-%x", filepath.Base(found.ABI), installation[:4])}, nil
}

// LastLine returns ": " and the last line of a process's output, shortened to fit into a sentence, or "" if there is none.
func LastLine(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	line := []rune(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]))
	if len(line) > 200 {
		line = append(line[:200], '…')
	}
	return ": " + string(line)
}

// Sources returns the files of the interpreter that a confined process may read, with what the configuration adds.
func (i Interpreter) Sources(pythonPath, preload []string) confine.Sources {
	return confine.Sources{Executable: i.Executable, Roots: i.Roots, Paths: i.paths, Libraries: i.libraries, PythonPath: pythonPath, Preload: preload, Commands: i.Commands}
}

// Source returns an embedded Python program, by its name without ".py". It panics when there is none.
func Source(name string) string {
	text, err := python.Sources.ReadFile(name + ".py")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}
