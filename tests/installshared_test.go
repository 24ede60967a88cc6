package tests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// Two handlers of one configuration keep packages in one place: what one installs the other has at the same moment.
func TestInstallTwoHandlers(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	for _, name := range []string{"sbx-a", "sbx-b", "sbx-c", "sbx-d", "sbx-e", "sbx-f"} {
		x.AddWheels(index.Wheel{Name: name, Version: "1.0"})
	}
	// The second has a pool of its own, and other rules.
	second := installing(x.URL(), oftenEnough, "block sbx-a") + "\nlimits {\n output 300\n }"
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough), site: "handle_path /second/* {\n python_sandbox {\n" + second + "\n }\n }"})
	other := c.in(t)
	other.url += "/second"
	both := func(code string) {
		t.Helper()
		c.mustPrint(code, "right\n")
		other.mustPrint(code, "right\n")
	}
	c.mustInstall("sbx-a", "")
	both(has("sbx_a 1.0"))
	if a := other.install("sbx-a", ""); a.Status != "blocked" {
		t.Errorf("the other one's rules: %s", a.raw)
	}
	other.mustInstall("sbx-b", "")
	both(has("sbx_a 1.0", "sbx_b 1.0"))
	var wait sync.WaitGroup
	for n, name := range []string{"sbx-c", "sbx-d", "sbx-e", "sbx-f"} {
		wait.Go(func() {
			if a, err := []*caddy{c, other}[n%2].tryInstall(t.Context(), name, ""); err != nil || a.Status != "installed" {
				t.Errorf("%s: %s %v", name, a.raw, err)
			}
		})
	}
	wait.Wait()
	both(has("sbx_a 1.0", "sbx_b 1.0", "sbx_c 1.0", "sbx_d 1.0", "sbx_e 1.0", "sbx_f 1.0"))
	if _, one := c.packages(); !slices.Equal(c.installed(), other.installed()) {
		t.Errorf("they list %s and %q", one, other.installed())
	}
	// One of them goes, and the other one does not notice.
	c.reload(c.o.directive, "")
	c.mustPrint(has("sbx_a 1.0", "sbx_f 1.0"), "right\n")
	if a := c.install("sbx-a", ""); a.Status != "already_installed" {
		t.Errorf("%s", a.raw)
	}
	eventually(t, 20*time.Second, "the processes of one handler only", func() bool { return len(children(t, c.pid())) == 1 })
	c.storeIsClean(c.dataDir())
}

// Two servers with one directory: installs take turns, and neither takes away what programs of the other use.
func TestInstallTwoServers(t *testing.T) {
	t.Parallel()
	x := newIndex(t, twoModules("sbx-up", "1.0"), twoModules("sbx-up", "2.0"))
	for n := range 10 {
		x.AddWheels(index.Wheel{Name: fmt.Sprintf("sbx-%d", n), Version: "1.0"})
	}
	o := caddyOptions{directive: installing(x.URL(), oftenEnough, "data_dir "+filepath.Join(sharedDir(t), "packages"))}
	one, two := startCaddy(t, o), startCaddy(t, o)
	one.mustInstall("sbx-up", "1.0")
	one.mustPrint(has("sbx_up 1.0"), "right\n")
	two.mustPrint("import importlib.util; print(importlib.util.find_spec('sbx_up'))", "None\n") // not before its own next install
	two.mustInstall("sbx-0", "")
	two.mustPrint(has("sbx_up 1.0", "sbx_0 1.0"), "right\n")

	// The second one upgrades; the first goes on with what it has, for as long as it likes.
	two.mustInstall("sbx-up", "2.0")
	two.mustPrint(has("sbx_up 2.0", "sbx_up.sub 2.0"), "right\n")
	for range 4 {
		one.mustPrint(has("sbx_up 1.0", "sbx_up.sub 1.0"), "right\n")
	}
	one.mustHave("sbx-up 1.0")
	// It takes the other's up with its own next install, and by asking for what is there already.
	if a := one.install("sbx-0", ""); a.Status != "already_installed" {
		t.Errorf("%s", a.raw)
	}
	one.mustPrint(has("sbx_up 2.0", "sbx_up.sub 2.0", "sbx_0 1.0"), "right\n")

	// At once.
	var wait sync.WaitGroup
	for n := 1; n < 7; n++ {
		wait.Go(func() {
			if a, err := []*caddy{one, two}[n%2].tryInstall(t.Context(), fmt.Sprintf("sbx-%d", n), ""); err != nil || a.Status != "installed" {
				t.Errorf("sbx-%d: %s %v", n, a.raw, err)
			}
		})
	}
	wait.Wait()
	one.mustInstall("sbx-7", "")
	all := []string{"sbx_up 2.0"}
	for n := range 8 {
		all = append(all, fmt.Sprintf("sbx_%d 1.0", n))
	}
	one.mustPrint(has(all...), "right\n")

	// kill -9 of one in the middle of an install leaves the turn to the other.
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = two.tryInstall(t.Context(), "sbx-8", "")
	}()
	eventually(t, wholeWithin, "its installer", func() bool { return len(two.installers()) > 0 })
	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-two.exited
	<-asked
	one.mustInstall("sbx-9", "")
	one.mustPrint(has(append(all, "sbx_9 1.0")...), "right\n")
	two.restart()
	two.mustPrint(has(append(all, "sbx_9 1.0")...), "right\n")
	if a, b := strings.Join(one.installed(), " "), strings.Join(two.installed(), " "); a != b {
		t.Errorf("they list %s and %s", a, b)
	}
	one.noneIsLeft()
	two.noneIsLeft()
}
