package pool

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

const hugePage = 2 << 20

// Workers run the interpreter's code from huge pages where the kernel makes them: a fork then has less to copy and a run fewer page
// faults. Programs do not notice, not even one that reads its own code.
func TestInterpretersCodeIsInHugePages(t *testing.T) {
	t.Parallel()
	if !collapses(t) {
		skip.Without(t, "the kernel collapses no memory into huge pages (madvise(2), MADV_COLLAPSE): use Linux 6.1 or later")
	}
	tried := 0
	for _, python := range []string{"python3", "/usr/bin/python3"} { // whose code is in a library, and in the program, on many systems
		if codeBytes(t, python) < 2*hugePage {
			continue // it need not hold an aligned huge page
		}
		tried++
		// A kernel that finds no free huge page at this moment leaves the code where it is.
		said := ""
		for range 3 {
			r := execute(t, newTestPool(t, Config{Python: python, Templates: 1, Idle: 1, Max: 1}), `import ctypes
ctypes.string_at(ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value, 4096)
print(*[line for line in open("/proc/self/smaps") if "-" in line.split()[0] or line.startswith("AnonHugePages:")], sep="")`, 10*time.Second)
			if said = r.Stdout; r.Status != StatusOK {
				t.Fatalf("got %+v", r)
			}
			if hasHugeCode(said) {
				break
			}
		}
		if !hasHugeCode(said) {
			t.Errorf("%s runs from small pages: %s", python, said)
		}
	}
	if tried == 0 {
		skip.Without(t, "no interpreter here has 4 MiB of code and constants, enough for an aligned huge page")
	}
}

// codeBytes returns the size of the adjacent read-only mappings of the file that holds an interpreter's code.
func codeBytes(t *testing.T, python string) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), python, "-c", `import ctypes
inside = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value
start = end = path = None
for line in [*open("/proc/self/maps"), "0-0 rw-p 0 0 0"]:
    fields = line.split(None, 5)
    first, last = (int(x, 16) for x in fields[0].split("-"))
    if fields[1][1] == "w" or fields[-1] != path or first != end:
        if start is not None and start <= inside < end: print(end - start)
        start = first
    end, path = last, fields[-1]`).Output()
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// hasHugeCode looks for an executable mapping without a file that consists of huge pages (proc_pid_smaps(5)).
func hasHugeCode(smaps string) bool {
	code := false
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			code = fields[1] == "r-xp" && fields[4] == "0"
		case code && fields[0] == "AnonHugePages:" && fields[1] != "0":
			return true
		}
	}
	return false
}

// collapses says whether the kernel has MADV_COLLAPSE and lets this process use it.
func collapses(t *testing.T) bool {
	t.Helper()
	const collapse = 25
	memory, err := unix.Mmap(-1, 0, 2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	clear(memory)
	at := -uintptr(unsafe.Pointer(unsafe.SliceData(memory))) % hugePage
	return unix.Madvise(memory[at:at+hugePage], collapse) == nil
}
