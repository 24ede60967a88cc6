package tests

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// Without the word index it is what pip is configured to use that counts: by files, by the environment, with accounts,
// certificates and directories.
func TestInstallFromPipsOwnIndex(t *testing.T) {
	t.Parallel()
	one := index.Wheel{Name: "sbx-one", Version: "1.0"}
	small := "workers {\n idle 2\n templates 1\n }"
	try := func(t *testing.T, c *caddy) {
		t.Helper()
		c.mustInstall("sbx-one", "")
		c.mustPrint(has("sbx_one 1.0"), "right\n")
		c.noneIsLeft()
	}
	t.Run("a file", func(t *testing.T) {
		t.Parallel()
		home := filepath.Join(sharedDir(t), "home")
		if err := os.MkdirAll(filepath.Join(home, ".config", "pip"), 0o755); err != nil { // a home
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".config", "pip", "pip.conf"), []byte("[global]\nindex-url = "+newIndex(t, one).URL()+"\n"), 0o644); err != nil { // likewise
			t.Fatal(err)
		}
		try(t, startCaddy(t, caddyOptions{directive: small, home: home}))
	})
	t.Run("the environment", func(t *testing.T) {
		t.Parallel()
		empty, x := newIndex(t), newIndex(t, one)
		try(t, startCaddy(t, caddyOptions{directive: small, env: []string{"PIP_INDEX_URL=" + empty.URL(), "PIP_EXTRA_INDEX_URL=" + x.URL()}}))
	})
	t.Run("a directory", func(t *testing.T) {
		t.Parallel()
		dir := interpreterDir(t) // which is not each execution's own
		name, content := one.Build()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { // a wheel
			t.Fatal(err)
		}
		try(t, startCaddy(t, caddyOptions{directive: small, env: []string{"PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + dir}}))
	})
	t.Run("HTTPS and an account", func(t *testing.T) {
		t.Parallel()
		x := index.NewTLS()
		t.Cleanup(x.Close)
		x.SetAccount("me", "a-secret")
		x.AddWheels(one, twoModules("sbx-two", "1.0"))
		certificate := filepath.Join(interpreterDir(t), "certificate.pem")
		if err := os.WriteFile(certificate, x.CertPEM(), 0o644); err != nil { // a certificate
			t.Fatal(err)
		}
		url := strings.Replace(x.URL(), "https://", "https://me:a-secret@", 1)
		c := startCaddy(t, caddyOptions{directive: small, env: []string{"PIP_INDEX_URL=" + url, "PIP_CERT=" + certificate}})
		try(t, c)
		// An account that is no longer right is told as that, and nobody is told the account.
		x.SetAccount("me", "another-secret")
		a := c.install("sbx-two", "")
		if a.Status != "failed" || !strings.Contains(a.Message, "refuses this account") {
			t.Errorf("%s", a.raw)
		}
		if strings.Contains(a.raw+c.log.String(), "secret") {
			t.Errorf("the password is told: %s", a.raw)
		}
		c.mustPrint("import os; print([k for k in os.environ if 'PIP' in k])", "[]\n")
	})
	t.Run("a certificate that is not trusted", func(t *testing.T) {
		t.Parallel()
		x := index.NewTLS()
		t.Cleanup(x.Close)
		c := startCaddy(t, caddyOptions{directive: installing(x.URL())})
		if a := c.install("sbx-one", ""); a.Status != "failed" || !strings.Contains(a.Message, "certificate that is not trusted") {
			t.Errorf("%s", a.raw)
		}
	})
	// What the operator got wrong is told in a result, too.
	for name, r := range map[string]struct {
		env  []string
		says string
	}{
		"a certificate that is not there": {[]string{"PIP_INDEX_URL=https://127.0.0.1:1/simple", "PIP_CERT=/nowhere/certificate.pem"}, "cert"},
		"plain HTTP abroad":               {[]string{"PIP_INDEX_URL=http://index.example/simple"}, "use https"},
		"an index that is none":           {[]string{"PIP_INDEX_URL=ftp://index.example/simple"}, "index-url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCaddy(t, caddyOptions{directive: small, env: r.env})
			if a := c.install("sbx-one", ""); a.Status != "failed" || !strings.Contains(a.Message, r.says) {
				t.Errorf("%s", a.raw)
			}
			c.mustPrint("print('right')", "right\n")
		})
	}
	t.Run("a certificate in /tmp", func(t *testing.T) {
		t.Parallel()
		x := index.NewTLS()
		t.Cleanup(x.Close)
		x.AddWheels(one)
		certificate := filepath.Join(sharedDir(t), "certificate.pem")
		if err := os.WriteFile(certificate, x.CertPEM(), 0o644); err != nil { // a certificate
			t.Fatal(err)
		}
		c := startCaddy(t, caddyOptions{directive: small, env: []string{"PIP_INDEX_URL=" + x.URL(), "PIP_CERT=" + certificate}})
		if a := c.install("sbx-one", ""); a.Status != "failed" || !strings.Contains(a.Message, "operator") {
			t.Errorf("%s", a.raw)
		}
		if !strings.Contains(c.log.String(), "move it out of /tmp") {
			t.Error("the operator is not told what to do")
		}
	})
}

// Who asks for the same at the same time shares the work.
func TestInstallSameAtOnce(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), "rate 12 1h"), site: withMetrics})
	var wait sync.WaitGroup
	for range 12 {
		wait.Go(func() {
			if a, err := c.tryInstall(t.Context(), "sbx-one", ""); err != nil || a.Status != "installed" || *a.Version != "1.0" || len(a.Packages) != 1 {
				t.Errorf("%d %s %v", a.code, a.raw, err)
			}
		})
	}
	wait.Wait()
	if n := x.WheelDownloads(); n != 1 && !(n == 2 && fetchesTwice()) {
		t.Errorf("the wheel was fetched %d times", n)
	}
	set, _ := c.packages()
	if set.Generation != 1 {
		t.Errorf("it is generation %d", set.Generation)
	}
	if a, err := c.tryInstall(t.Context(), "sbx-one", ""); err != nil || a.code != 429 {
		t.Errorf("each counts: %d %s %v", a.code, a.raw, err)
	}
}
