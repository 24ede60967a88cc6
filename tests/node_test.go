package tests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const needsNode = "the MCP clients for Node are not installed: `make .node-tests/.stamp` installs them where npm is"

// nodeClients is where the clients for Node are, and the Node that runs them; both empty when they are not installed.
var nodeClients = sync.OnceValues(func() (dir, program string) {
	dir, err := filepath.Abs("../.node-tests")
	if err != nil {
		return "", ""
	}
	programs, err := filepath.Glob(filepath.Join(dir, "node_modules/node-linux-*/bin/node"))
	if err != nil || len(programs) == 0 {
		return "", ""
	}
	if _, err := os.Stat(filepath.Join(dir, ".stamp")); err != nil {
		return "", ""
	}
	// A module finds others only below its own directory.
	script, err := os.ReadFile("node/sdk.mjs")
	if err != nil || os.WriteFile(filepath.Join(dir, "sdk.mjs"), script, 0o600) != nil {
		return "", ""
	}
	return dir, programs[0]
})

func needNodeClients(t testing.TB) {
	t.Helper()
	dir, _ := nodeClients()
	need(t, dir != "", needsNode)
}

// node is a program for Node, given relative to where the clients are installed.
func node(ctx context.Context, home string, args ...string) *exec.Cmd {
	dir, program := nodeClients()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "NO_COLOR=1", "CI=true"}
	return cmd
}
