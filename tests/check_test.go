package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// checked is what `caddy python-sandbox check --json` says.
type checked struct {
	Held      bool
	Advice    string
	Sandboxes []struct {
		Where                     []string
		Isolation, Refusal, Error string
		Python                    struct{ Version, Executable string }
		Guarantees                []struct {
			Name   string
			Layers []string
			Reason string
		}
	}
}

// check runs `caddy python-sandbox check` and returns what it prints, the rest of what it says and its exit status. Nothing
// of it is left then.
func (c *caddy) check(env []string, args ...string) (stdout, stderr string, code int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := c.command(ctx, append([]string{"python-sandbox", "check"}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		c.Fatalf("%v %v\n%s%s", err, ctx.Err(), out.String(), errs.String())
	}
	if n := entries(c, c.tmp()); n > 0 {
		c.Errorf("%d files are left in its temporary directory", n)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (c *caddy) checkJSON(env []string, args ...string) (checked, int) {
	c.Helper()
	stdout, stderr, code := c.check(env, append(args, "--json")...)
	var report checked
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		c.Fatalf("%v in %s%s", err, stdout, stderr)
	}
	return report, code
}

// In every world people run Caddy in, the check says what /health of a Caddy there says.
func TestCheckAgreesWithHealth(t *testing.T) {
	t.Parallel()
	inEachWorld(t, "", func(t *testing.T, served *caddy) {
		held := served.guarantees()
		c := prepare(t, served.o)
		report, code := c.checkJSON(nil, "--config", c.configFile)
		if code != 0 || !report.Held || len(report.Sandboxes) != 1 {
			t.Fatalf("exit status %d, %+v", code, report)
		}
		s := report.Sandboxes[0]
		if s.Isolation != "strict" || s.Refusal != "" || s.Error != "" || s.Python.Executable == "" || len(s.Where) != 1 || len(s.Guarantees) != len(held) {
			t.Errorf("got %+v", s)
		}
		for _, g := range s.Guarantees {
			if !slices.Equal(g.Layers, held[g.Name]) {
				t.Errorf("%s is held by %q, and /health says %q", g.Name, g.Layers, held[g.Name])
			}
		}
		text, _, code := c.check(nil, "--python", s.Python.Executable)
		if code != 0 || !strings.Contains(text, s.Python.Version) || !strings.HasSuffix(text, "Every guarantee is held: this system can run the sandbox with isolation strict.\n") {
			t.Errorf("exit status %d:\n%s", code, text)
		}
		for _, g := range s.Guarantees {
			if line := regexp.MustCompile(regexp.QuoteMeta(g.Name) + " +" + regexp.QuoteMeta(strings.Join(g.Layers, ", ")) + "\n"); !line.MatchString(text) {
				t.Errorf("no line of %s in\n%s", g.Name, text)
			}
		}
	})
}

// What docs/security.md says of each world is what holds there.
func TestSecurityDocumentAgrees(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| guarantee | with namespaces | without, as root | without, as an ordinary user |\n|---|---|---|---|\n")
	table, _, ends := strings.Cut(table, "\n\n")
	if !found || !ends {
		t.Fatal("docs/security.md has no table of the guarantees")
	}
	abi, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	need(t, int(abi) >= 6, "the table is for kernels with Landlock's ABI 6 or later (Linux 6.12)")
	for _, w := range worlds {
		column := 1
		switch {
		case !w.namespaces && w.root:
			column = 2
		case !w.namespaces:
			column = 3
		}
		t.Run(w.name, func(t *testing.T) {
			o := caddyOptions{directive: "python " + systemPython(t), noNamespaces: !w.namespaces}
			need(t, !w.root || os.Geteuid() == 0, needsRoot)
			if !w.root {
				o.credential = ordinaryUser()
			}
			c := prepare(t, o)
			report, _ := c.checkJSON(nil, "--config", c.configFile)
			var says strings.Builder
			for _, g := range report.Sandboxes[0].Guarantees {
				layers := slices.DeleteFunc(g.Layers, func(layer string) bool { return layer == "cgroup" }) // one more, where it is delegated
				fmt.Fprintf(&says, "%s: %s\n", g.Name, strings.Join(layers, ", "))
			}
			var want strings.Builder
			for row := range strings.Lines(table + "\n") {
				cells := strings.Split(strings.Trim(row, "|\n"), "|")
				fmt.Fprintf(&want, "%s: %s\n", strings.TrimSpace(cells[0]), strings.TrimSpace(cells[column]))
			}
			if says.String() != want.String() {
				t.Errorf("docs/security.md says\n%s\nand here it is\n%s", want.String(), says.String())
			}
		})
	}
}

// A system that can hold too little is told so, with the whole table, and with what to do.
func TestCheckWhereTooLittleHolds(t *testing.T) {
	t.Parallel()
	c := prepare(t, caddyOptions{directive: "python " + systemPython(t), credential: ordinaryUser(), noNamespaces: true})
	env := []string{withoutLandlock + "=1"}
	report, code := c.checkJSON(env, "--config", c.configFile)
	if code != 1 || report.Held || len(report.Sandboxes) != 1 {
		t.Fatalf("exit status %d, %+v", code, report)
	}
	s := report.Sandboxes[0]
	if s.Error != "" || !strings.Contains(s.Refusal, "best_effort") || s.Isolation != "strict" {
		t.Errorf("got %+v", s)
	}
	missing := 0
	for _, g := range s.Guarantees {
		if (len(g.Layers) == 0) != strings.Contains(g.Reason, "Landlock") {
			t.Errorf("got %+v", g)
		}
		if len(g.Layers) == 0 {
			missing++
		}
	}
	if missing == 0 || missing == len(s.Guarantees) || !strings.HasPrefix(report.Advice, fmt.Sprintf("%d guarantees are not held: ", missing)) {
		t.Errorf("%d guarantees are missing: %s", missing, report.Advice)
	}
	text, _, code := c.check(env, "--config", c.configFile)
	if code != 1 || strings.Count(text, "NOT HELD: ") != missing || !strings.Contains(text, "Isolation strict does not start here.") || !strings.HasSuffix(text, report.Advice+"\n") {
		t.Errorf("exit status %d:\n%s", code, text)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := prepare(t, caddyOptions{directive: "python /nowhere/python3"})
	python := systemPython(t)
	stack := regexp.MustCompile(`goroutine \d|\.go:\d`)
	for _, s := range []struct {
		name, says string
		args       []string
	}{
		{"no interpreter", `python "/nowhere/python3" was not found: install Python 3.10`, []string{"--config", c.configFile}},
		{"no confinement", "User code is not confined, since isolation is none: set isolation strict", []string{"--python", python, "--isolation", "none"}},
		{"unknown isolation", `isolation "lax" is unknown: use strict, best_effort or none`, []string{"--isolation", "lax"}},
		{"no configuration", "no such file or directory", []string{"--config", c.dir + "/none"}},
		{"no word", "unknown flag: --quickly", []string{"--quickly"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			stdout, stderr, code := c.check(nil, s.args...)
			if all := stdout + stderr; code != 1 || !strings.Contains(all, s.says) || stack.MatchString(all) {
				t.Errorf("exit status %d, want %q in:\n%s", code, s.says, all)
			}
		})
	}
}

// withoutLandlock is set in the environment of this very program when it is to go on without Landlock, as on a kernel that
// has none.
const withoutLandlock = "SANDBOX_TEST_WITHOUT_LANDLOCK"

func init() {
	if os.Getenv(withoutLandlock) == "" {
		return
	}
	err := os.Unsetenv(withoutLandlock)
	if err == nil {
		err = refuseLandlock()
	}
	if err == nil {
		// From its beginning, for what else its environment may say. The filter is of this thread, which is the one that execs.
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ()) // this program
	}
	fmt.Fprintln(os.Stderr, "going on without Landlock:", err)
	os.Exit(1)
}

func refuseLandlock() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_LANDLOCK_CREATE_RULESET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("loading the filter: %w", errno)
	}
	return nil
}
