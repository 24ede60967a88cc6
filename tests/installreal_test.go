package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// packagingEnv is what the environment of the tests says about the index, and about the way to it.
func packagingEnv() []string {
	var env []string
	isSet := false
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToUpper(pair), "=")
		isSet = isSet || name == "PIP_CONFIG_FILE"
		if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "SSL_CERT_") || strings.HasSuffix(name, "_PROXY") || strings.HasSuffix(name, "_CA_BUNDLE") {
			env = append(env, pair)
		}
	}
	// The server's home is one of the test's own.
	if home, err := os.UserHomeDir(); err == nil && !isSet {
		for _, file := range []string{".config/pip/pip.conf", ".pip/pip.conf"} {
			if _, err := os.Stat(filepath.Join(home, file)); err == nil {
				return append(env, "PIP_CONFIG_FILE="+filepath.Join(home, file))
			}
		}
	}
	return env
}

// The packages that assistants ask for most, from the index that this machine uses.
func TestInstallFromRealIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("it downloads some 30 MiB")
	}
	t.Parallel()
	// An interpreter that has none of them.
	dir := filepath.Join(interpreterDir(t), "venv")
	if out, err := exec.Command(systemPython(t), "-m", "venv", dir).CombinedOutput(); err != nil {
		need(t, false, fmt.Sprintf("python3 -m venv makes no environment with pip here (%v): %s", err, out))
	}
	python := filepath.Join(dir, "bin", "python")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	plain := exec.CommandContext(ctx, python, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--dest", t.TempDir(), "packaging")
	plain.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, packagingEnv()...)
	if out, err := plain.CombinedOutput(); err != nil {
		need(t, false, fmt.Sprintf("pip itself reaches no index from here (%v): %s", err, tail(string(out), 500)))
	}

	c := startCaddy(t, caddyOptions{directive: "python " + python + "\nworkers {\n idle 2\n templates 1\n }", env: packagingEnv()})
	for _, r := range []struct{ name, module, code, want string }{
		{"requests", "requests", "print(requests.Request('GET', 'https://example.org/a b', params={'q': 'ü'}).prepare().url)", "https://example.org/a%20b?q=%C3%BC\n"},
		{"numpy", "numpy", "print(numpy.linalg.det(numpy.eye(3) * 2).round(6), numpy.arange(10).sum())", "8.0 45\n"},
		{"pandas", "pandas", "print(pandas.DataFrame({'k': list('aab'), 'v': [1, 2, 3]}).groupby('k').v.sum().to_dict())", "{'a': 3, 'b': 3}\n"},
	} {
		before := c.run("import " + r.module)
		if hint := hintOf(t, before); before.Success || !strings.Contains(hint, `{"package": "`+r.name+`"}`) {
			t.Errorf("before the install %s has the hint %q: %s", r.module, hint, before.raw)
		}
		a := c.mustInstall(r.name, "")
		t.Logf("%s in %.1f s: %v", r.name, *a.Seconds, a.Packages)
		c.mustPrint("import "+r.module+"\n"+r.code, r.want)
	}
	if a := c.install("numpy", ">=1"); a.Status != "already_installed" {
		t.Errorf("%s", a.raw)
	}
	for name, status := range map[string]string{"reqeusts": "blocked", "this-package-is-not-there-zz": "not_found"} {
		if a := c.install(name, ""); a.Status != status {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	c.restart()
	c.mustPrint("import numpy, pandas, requests; print('right')", "right\n")
	c.noneIsLeft()
}
