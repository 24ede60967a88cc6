package confine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Without namespaces a run shares counts with the host: of blocks, of descriptors in flight. And it must not hide from the monitor.
func TestFilterOfProcessesRefusesWhatIsCountedNowhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		arguments []uint64
		among     unix.Errno // the answer without namespaces; with them, the call is allowed
	}{
		{"fallocate", []uint64{0, unix.FALLOC_FL_KEEP_SIZE}, unix.EOPNOTSUPP},
		{"fallocate", []uint64{0, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}, unix.EOPNOTSUPP},
		{"socketpair", []uint64{unix.AF_UNIX, unix.SOCK_DGRAM}, unix.EACCES}, {"socketpair", []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC}, unix.EACCES},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE, 0}, unix.EPERM},
	} {
		for _, goarch := range []string{"amd64", "arm64"} {
			arch := seccompArches[goarch]
			number := uint32(arch.SyscallNames[c.name])
			if got := answers(t, makeProgram(t, goarch, amongProcesses), uint32(arch.ID), number, c.arguments...); got != c.among {
				t.Errorf("%s: without namespaces %s%#x: got %v, want %v", goarch, c.name, c.arguments, got, c.among)
			}
			if got := answers(t, makeProgram(t, goarch, inNamespaces), uint32(arch.ID), number, c.arguments...); got != 0 {
				t.Errorf("%s: with namespaces %s%#x: got %v", goarch, c.name, c.arguments, got)
			}
		}
	}
}
