package index

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pip runs a real pip of its own.
type Pip struct {
	// Python is the interpreter that has it.
	Python string
	home   string
}

// NewPip makes a virtual environment that the test removes. It needs some seconds. The test is skipped when there is no
// Python, and fails then in CI. SANDBOX_PYTHON names the Python.
func NewPip(t testing.TB) *Pip {
	t.Helper()
	python := os.Getenv("SANDBOX_PYTHON")
	if python == "" {
		python = "python3"
	}
	dir := t.TempDir()
	p := &Pip{Python: filepath.Join(dir, "venv", "bin", "python"), home: dir}
	out, err := exec.Command(python, "-m", "venv", filepath.Join(dir, "venv")).CombinedOutput()
	if err == nil {
		out, err = exec.Command(p.Python, "-m", "pip", "--version").CombinedOutput()
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s makes no virtual environment with pip: install Python with venv and ensurepip, or name one with SANDBOX_PYTHON: %v\n%s", python, err, out)
	default:
		t.Skipf("%s makes no virtual environment with pip: install Python with venv and ensurepip, or name one with SANDBOX_PYTHON", python)
	}
	return p
}

// Run runs pip with arguments, and with no settings but those in env; it returns all that pip prints. It has two minutes.
func (p *Pip) Run(t testing.TB, env []string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Python, append([]string{"-m", "pip"}, args...)...)
	cmd.Dir = p.home
	for _, variable := range os.Environ() { // neither the machine's settings nor its proxy
		name, _, _ := strings.Cut(strings.ToUpper(variable), "=")
		if !strings.HasPrefix(name, "PIP_") && !strings.HasSuffix(name, "_PROXY") && !strings.HasSuffix(name, "_CA_BUNDLE") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "PIP_CONFIG_FILE="+os.DevNull, "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PIP_NO_CACHE_DIR=1",
		"HOME="+p.home)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
