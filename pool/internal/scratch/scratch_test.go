package scratch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A program may make directories that their owner may not read. They are no reason to call its scratch full, and what is in them counts.
// Only an ordinary user is refused, so root runs this test again as one.
func TestDirectoriesWithoutAccessAreCounted(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	dir := t.TempDir()
	closed := filepath.Join(dir, "7-x", "a", "closed")
	for _, mode := range []os.FileMode{0, 0o100, 0o200, 0o300} {
		path := fmt.Sprintf("%s%o", closed, mode)
		must(t, os.MkdirAll(path, 0o700))
		must(t, os.WriteFile(filepath.Join(path, "file"), bytes.Repeat([]byte{1}, 1<<20), 0o600))
		must(t, os.Chmod(path, mode))
	}
	if Full(dir, 7, 5<<20, 0) {
		t.Error("4 MiB of 5 are full")
	}
	for _, mode := range []os.FileMode{0, 0o100, 0o200, 0o300} {
		must(t, os.Chmod(fmt.Sprintf("%s%o", closed, mode), mode))
	}
	if !Full(dir, 7, 3<<20, 0) || !Full(dir, 7, 5<<20, 2<<20) {
		t.Error("4 MiB of 3 are not full")
	}
	if RemoveOf(dir, 7); len(Of(dir, 7)) > 0 {
		t.Error("scratch was not removed")
	}
}

func asNobody(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chown(dir, 65534, 65534))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v") // whose path an ordinary user may not reach
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
