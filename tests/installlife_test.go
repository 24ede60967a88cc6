package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// restart ends the server, unless that is over already, and starts it anew with the same data.
func (c *caddy) restart() {
	c.Helper()
	c.stop()
	c.launch(c.command(context.Background(), "run", "--config", c.configFile, "--adapter", "caddyfile"))
}

// launch starts a server that does not run, and waits until it is healthy.
func (c *caddy) launch(cmd *exec.Cmd) {
	c.Helper()
	cmd.Stdout, cmd.Stderr = c.log, c.log
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	c.cmd, c.exited = cmd, exited
	c.waitHealthy(60 * time.Second)
}

// Installs wait for each other, and no execution waits for them.
func TestInstallWhileExecuting(t *testing.T) {
	t.Parallel()
	const many, clients, least = 16, 16, 200
	x := newIndex(t)
	var modules []string
	for n := range many {
		x.AddWheels(index.Wheel{Name: fmt.Sprintf("sbx-%d", n), Version: "1.0"})
		modules = append(modules, fmt.Sprintf("sbx_%d", n))
	}
	c := startCaddy(t, caddyOptions{directive: strings.Replace(installing(x.URL(), oftenEnough), "idle 2", "idle 2\n max 16", 1)})

	var there sync.Map // modules that an answer has told of
	var executed atomic.Int64
	installs, quit := sync.WaitGroup{}, make(chan struct{})
	var executions sync.WaitGroup
	for range clients {
		executions.Go(func() {
			for {
				n := executed.Add(1)
				select {
				case <-quit:
					if n > least {
						return
					}
				default:
				}
				var wanted []string
				there.Range(func(module, _ any) bool { wanted = append(wanted, module.(string)); return true })
				code := fmt.Sprintf("import time; time.sleep(0.8); print('nonce %d')", n)
				if len(wanted) > 0 {
					code = "import " + strings.Join(wanted, ", ") + "; " + code
				}
				a, err := c.execute(t.Context(), map[string]any{"code": code, "timeout": 60})
				if err != nil || a.code != 200 || a.Status != "ok" || a.Stdout != fmt.Sprintf("nonce %d\n", n) {
					t.Errorf("execution %d with %q: %d %.300s %v", n, wanted, a.code, a.raw, err)
				}
			}
		})
	}
	for n, module := range modules {
		installs.Go(func() {
			a, err := c.tryInstall(t.Context(), fmt.Sprintf("sbx-%d", n), "")
			if err != nil || a.code != 200 || a.Status != "installed" {
				t.Errorf("installing %s: %d %s %v", module, a.code, a.raw, err)
				return
			}
			there.Store(module, true)
		})
	}
	installs.Wait()
	close(quit)
	executions.Wait()
	t.Logf("%d executions", executed.Load()-clients)
	want := ""
	for _, module := range modules {
		want += module + " 1.0\n"
	}
	c.mustPrint(versionsOf(modules...), want)
	c.noneIsLeft()
}

// What is installed is there after a reload and a restart, and an upgrade takes the older version's place.
func TestInstallSurvivesRestartAndReload(t *testing.T) {
	t.Parallel()
	x := newIndex(t, twoModules("sbx-one", "1.0"), twoModules("sbx-one", "2.0"), index.Wheel{Name: "sbx-two", Version: "1.0", Requires: []string{"sbx-three"}}, index.Wheel{Name: "sbx-three", Version: "3.0"})
	directive := installing(x.URL(), oftenEnough)
	c := startCaddy(t, caddyOptions{directive: directive})
	c.mustInstall("sbx-one", "1.0")
	c.mustInstall("sbx-two", "")
	all := has("sbx_one 1.0", "sbx_one.sub 1.0", "sbx_two 1.0", "sbx_three 3.0")
	c.mustPrint(all, "right\n")
	_, listed := c.packages()
	same := func(when string) {
		t.Helper()
		c.mustPrint(all, "right\n")
		if _, now := c.packages(); now != listed {
			t.Errorf("%s GET /packages is %s, and was %s", when, now, listed)
		}
	}

	// What shapes no process leaves the processes alone, and is in force at once.
	eventually(t, wholeWithin, "the template of the current set alone", func() bool { return len(children(t, c.pid())) == 1 })
	before := children(t, c.pid())
	c.reload(installing(x.URL(), oftenEnough, "block sbx-one"), "")
	same("after a reload of the policy")
	if now := children(t, c.pid()); !slices.Equal(before, now) {
		t.Errorf("templates were %v and are %v", before, now)
	}
	if a := c.install("sbx-one", "2.0"); a.Status != "blocked" {
		t.Errorf("blocked since the reload: %s", a.raw)
	}
	// Another limit swaps the pool.
	c.reload(directive+"\nlimits {\n output 300\n }", "")
	same("after a reload of the limits")
	eventually(t, 20*time.Second, "the old templates gone", func() bool {
		now := children(t, c.pid())
		return !slices.ContainsFunc(before, func(p process) bool { return slices.Contains(now, p) })
	})
	same("after the old pool")
	c.restart()
	same("after a restart")

	// One that runs goes on with what there was.
	running := make(chan answer, 1)
	go func() {
		a, err := c.execute(context.Background(), map[string]any{"code": "import sbx_one, time\ntime.sleep(4)\nimport sbx_one.sub\nprint(sbx_one.__version__, sbx_one.sub.__version__)"})
		if err != nil {
			t.Error(err)
		}
		running <- a
	}()
	c.waitHealth(wholeWithin, "a worker at work", leased(1))
	if a := c.mustInstall("sbx-one", ">=1.5"); *a.Version != "2.0" {
		t.Errorf("upgraded: %s", a.raw)
	}
	c.mustPrint(has("sbx_one 2.0", "sbx_one.sub 2.0", "sbx_two 1.0"), "right\n")
	c.mustPrint("from importlib.metadata import version; print(version('sbx-one'))", "2.0\n")
	if a := <-running; a.Stdout != "1.0 1.0\n" {
		t.Errorf("the one that ran: %s", a.raw)
	}
	c.mustHave("sbx-one 2.0", "sbx-three 3.0", "sbx-two 1.0")
	// Another index knows nothing of what is there, and need not.
	c.reload(installing(newIndex(t, index.Wheel{Name: "sbx-new", Version: "1.0", Requires: []string{"sbx-three>=3"}}).URL(), oftenEnough), "")
	c.mustInstall("sbx-new", "")
	c.mustPrint(has("sbx_one 2.0", "sbx_three 3.0", "sbx_new 1.0"), "right\n")
	c.restart()
	c.mustPrint(has("sbx_one 2.0", "sbx_one.sub 2.0"), "right\n")
	c.noneIsLeft()
}

// An install that is under way when the configuration changes, or Caddy is told to end, ends well or leaves the old set.
func TestInstallAcrossReloadAndSIGTERM(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	for _, name := range []string{"sbx-slow", "sbx-late"} {
		f := index.Wheel{Name: name, Version: "1.0"}.File()
		f.Delay = 2 * time.Second
		if name == "sbx-late" {
			f.Delay = time.Hour
		}
		x.Add(index.Project{Name: name, Files: []index.File{f}})
	}
	directive := installing(x.URL(), oftenEnough)
	c := startCaddy(t, caddyOptions{directive: directive})
	c.mustInstall("sbx-one", "")
	begin := func(name string) <-chan installAnswer {
		before := x.WheelDownloads()
		answered := make(chan installAnswer, 1)
		go func() {
			a, _ := c.tryInstall(context.Background(), name, "")
			answered <- a
		}()
		eventually(t, 30*time.Second, "the wheel is asked for", func() bool { return x.WheelDownloads() > before })
		return answered
	}
	answered := begin("sbx-slow")
	c.reload(directive+"\nlimits {\n output 300\n }", "")
	c.mustPrint(has("sbx_one 1.0"), "right\n")
	if a := <-answered; a.Status != "installed" {
		t.Errorf("across the reload: %d %s", a.code, a.raw)
	}
	c.mustPrint(has("sbx_one 1.0", "sbx_slow 1.0"), "right\n")

	answered = begin("sbx-late")
	below := descendants(t, c.pid())
	start := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.expectExit(20*time.Second, "with an install under way")
	if a := <-answered; a.code == 200 && a.Success || a.code == 500 {
		t.Errorf("across SIGTERM: %d %s", a.code, a.raw)
	} else {
		t.Logf("SIGTERM: %d %s after %s", a.code, a.raw, time.Since(start))
	}
	for _, p := range living(t, slices.Values(below)) {
		t.Errorf("%+v has survived", p)
	}
	c.storeIsClean(c.dataDir())
	c.restart()
	c.mustHave("sbx-one 1.0", "sbx-slow 1.0")
	c.mustPrint(has("sbx_one 1.0", "sbx_slow 1.0"), "right\n")
}

// twoModules is a wheel of a package with a module sub, each of which knows its version.
func twoModules(name, version string, requires ...string) index.Wheel {
	dir := strings.ReplaceAll(name, "-", "_")
	line := fmt.Sprintf("__version__ = %q\n", version)
	return index.Wheel{Name: name, Version: version, Requires: requires, Files: map[string]string{dir + "/__init__.py": line, dir + "/sub.py": line}}
}

// installers returns the children of Caddy that work on an install: they have a directory to write to.
func (c *caddy) installers() []process {
	return slices.DeleteFunc(children(c, c.pid()), func(p process) bool {
		mounts, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/mountinfo")
		return err != nil || !strings.Contains(string(mounts), " /sandbox/work ")
	})
}

// kill -9 of Caddy or of its installer, at any moment of an install: the set is the old one or the new one, and whole.
func TestInstallKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	const rounds = 20
	x := newIndex(t)
	for _, v := range []string{"1.0", "2.0"} {
		x.AddWheels(twoModules("sbx-top", v, "sbx-left=="+v, "sbx-right=="+v), twoModules("sbx-left", v), twoModules("sbx-right", v))
	}
	x.AddWheels(twoModules("sbx-kept", "1.0"))
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	c.mustInstall("sbx-kept", "")
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	// How long an install takes here, so that some kills come early and some late.
	start := time.Now()
	c.mustInstall("sbx-top", "1.0")
	whole := time.Since(start)
	version := "1.0" // of the three, as they are now
	tally := map[string]int{}
	for round := range rounds {
		next := "2.0"
		if version == next {
			next = "1.0"
		}
		answered := make(chan installAnswer, 1)
		go func() {
			a, err := c.tryInstall(t.Context(), "sbx-top", next)
			if err != nil {
				a.code = 0
			}
			answered <- a
		}()
		time.Sleep(time.Duration((float64(round/2) + random.Float64()) * 1.4 / (rounds / 2) * float64(whole)))
		var a installAnswer
		who := "Caddy"
		if round%2 == 0 {
			below := descendants(t, c.pid())
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-c.exited
			a = <-answered
			c.restart()
			for _, p := range living(t, slices.Values(below)) {
				t.Errorf("round %d: %+v has survived", round, p)
			}
		} else {
			who = "the installer"
			a = c.killInstaller(answered)
			c.mustPrint("print('right')", "right\n")
		}
		got := c.wholeSet(round)
		tally[who+": "+map[bool]string{true: "new set", false: "old set"}[got == next]]++
		switch {
		case got != version && got != next:
			t.Fatalf("round %d: it was %q, %q was asked for, and it is %q", round, version, next, got)
		case a.code == 200 && a.Status == "installed" && got != next:
			t.Fatalf("round %d: %q was said to be installed, and it is %q", round, next, got)
		case a.code == 200 && a.Status != "installed" && got != version:
			t.Fatalf("round %d: %q was not installed, and it is there: %s", round, next, a.raw)
		case a.code != 0 && a.code != 200 && a.code != 500:
			t.Errorf("round %d: %s", round, a.raw)
		}
		version = got
	}
	t.Logf("an install takes %s; %v", whole, tally)
	if tally["Caddy: old set"] == 0 || tally["the installer: old set"] == 0 {
		t.Errorf("no kill has come in time: %v", tally)
	}
	c.noneIsLeft()
	next := "2.0"
	if version == next {
		next = "1.0"
	}
	c.mustInstall("sbx-top", next)
	if got := c.wholeSet(rounds); got != next {
		t.Errorf("after an install that nothing disturbs it is %q", got)
	}
	c.noneIsLeft()
}

// killInstaller kills the next installer, unless the install ends before, and returns its answer.
func (c *caddy) killInstaller(answered <-chan installAnswer) installAnswer {
	for {
		select {
		case a := <-answered:
			return a
		case <-time.After(5 * time.Millisecond):
		}
		if found := c.installers(); len(found) > 0 && syscall.Kill(found[0].pid, syscall.SIGKILL) == nil {
			return <-answered
		}
	}
}

// wholeSet fails the test unless what is listed is what can be imported, and returns the version of sbx-top and of what it
// needs, or "" when they are not there.
func (c *caddy) wholeSet(round int) string {
	c.Helper()
	installed := map[string]string{}
	for _, p := range c.installed() {
		name, version, _ := strings.Cut(p, " ")
		installed[name] = version
	}
	if installed["sbx-kept"] != "1.0" {
		c.Fatalf("round %d: sbx-kept is gone: %v", round, installed)
	}
	version := installed["sbx-top"]
	if installed["sbx-left"] != version || installed["sbx-right"] != version {
		c.Fatalf("round %d: half a set: %v", round, installed)
	}
	var program strings.Builder
	program.WriteString("from importlib.metadata import version\n")
	for name, version := range installed {
		module := strings.ReplaceAll(name, "-", "_")
		fmt.Fprintf(&program, "import %[1]s.sub\nassert (%[1]s.__version__, %[1]s.sub.__version__, version(%[2]q)) == (%[3]q,) * 3\n", module, name, version)
	}
	program.WriteString("print('right')")
	c.mustPrint(program.String(), "right\n")
	if version == "" {
		c.mustPrint("import importlib.util; print(importlib.util.find_spec('sbx_left'))", "None\n")
	}
	return version
}
