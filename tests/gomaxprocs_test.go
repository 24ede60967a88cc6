package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sayProcessors is set in the environment of this very program when it is to print how many processors a Go program has here.
const sayProcessors = "SANDBOX_TEST_SAY_PROCESSORS"

func init() {
	if os.Getenv(sayProcessors) != "" {
		fmt.Println(runtime.GOMAXPROCS(0)) // to the test
		os.Exit(0)
	}
}

// The binary leaves half of the processors to Python, and lets the operator decide otherwise. How many a program has is for the
// runtime of Go to say, which looks at affinity and at the quota of the control group: this machine may have more.
func TestProcessorsAreShared(t *testing.T) {
	t.Parallel()
	idle := caddyOptions{site: withMetrics, directive: "workers {\n idle 1\n }"}
	for _, c := range []struct {
		name, env string
		launcher  []string
		want      int // 0: half of what the runtime says
	}{
		{"as the machine is", "", nil, 0},
		{"one processor", "", []string{"taskset", "--cpu-list", firstProcessor(t)}, 1},
		{"the operator decides", "GOMAXPROCS=3", nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := idle
			if c.env != "" {
				o.env = []string{c.env}
			}
			p := prepare(t, o)
			cmd := p.command(context.Background(), "run", "--config", p.configFile, "--adapter", "caddyfile")
			if c.launcher != nil {
				path, err := exec.LookPath(c.launcher[0])
				need(t, err == nil, "taskset is not installed: install util-linux")
				cmd.Path, cmd.Args = path, append(c.launcher, cmd.Args...)
			}
			want := c.want
			if want == 0 {
				said := exec.Command("/proc/self/exe")
				said.Env = append(cmd.Env, sayProcessors+"=1")
				out, err := said.CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				all, err := strconv.Atoi(strings.TrimSpace(string(out)))
				if err != nil {
					t.Fatal(err)
				}
				want = max(1, all/2)
			}
			p.launch(cmd)
			t.Cleanup(p.stop)
			if got := int(p.metric("go_sched_gomaxprocs_threads")); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}

// firstProcessor is one that this process may run on.
func firstProcessor(t testing.TB) string {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for n := range len(set) * 64 {
		if set.IsSet(n) {
			return strconv.Itoa(n)
		}
	}
	t.Fatal("this process may run on no processor")
	return ""
}
