package procfs

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Swapped-out memory counts too, since a memory limit bounds all memory of a program and not only what is in RAM.
func TestProportionalSizeCountsWhatIsSwappedOut(t *testing.T) {
	t.Parallel()
	const rollup = `5652d4d38000-7fff5dcf2000 ---p 00000000 00:00 0                          [rollup]
Rss:                2048 kB
Pss:                 300 kB
Pss_Dirty:           100 kB
Pss_Anon:             96 kB
Private_Dirty:        96 kB
Swap:               1024 kB
SwapPss:             512 kB
Locked:                0 kB
`
	if got, ok := proportional(rollup); got != 812<<10 || !ok {
		t.Errorf("%d bytes, %v; want %d", got, ok, 812<<10)
	}
	for _, text := range []string{"", "Rss: 1 kB\n", "Pss: x kB\n"} {
		if got, ok := proportional(text); ok {
			t.Errorf("%q is %d bytes", text, got)
		}
	}
}

// A page that two processes share counts half for each.
func TestProportionalSizeSharesPages(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	file, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	shared := os.NewFile(uintptr(file), "shared")
	defer shared.Close()
	if err := shared.Truncate(size); err != nil {
		t.Fatal(err)
	}
	const hold = `
import mmap, sys
held = mmap.mmap(3, 64 << 20)
for at in range(0, len(held), 4096):
    held[at] = 1
print("held", flush=True)
sys.stdin.read()
`
	first := startHolder(t, hold, shared)
	alone, ok := ReadProportional("/proc/" + strconv.Itoa(first))
	if !ok || alone < size {
		t.Fatalf("alone it holds %d bytes, %v", alone, ok)
	}
	startHolder(t, hold, shared)
	both, ok := ReadProportional("/proc/" + strconv.Itoa(first))
	if !ok || both > alone-size/4 {
		t.Errorf("alone it held %d bytes, and %d of them (%v) when another has the same pages", alone, both, ok)
	}
}

// startHolder runs a program until the test ends, which closes its standard input. It returns once the program has written something.
func startHolder(t *testing.T, program string, files ...*os.File) (pid int) {
	t.Helper()
	cmd := exec.Command("python3", "-I", "-c", program)
	cmd.ExtraFiles = files
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		if _, ok := ReadProportional("/proc/" + strconv.Itoa(cmd.Process.Pid)); ok {
			t.Error("a process that has ended holds something")
		}
	})
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}
