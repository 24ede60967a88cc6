package caddymodule

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// Packages says what clients may install. Each installed package is there for all clients of the server. Zero means the
// default.
type Packages struct {
	// Whether nothing can be installed at all. Default: false
	Off bool `json:"off,omitempty"`

	// The index's address (PEP 503). Default: whatever pip is configured to use, by its environment and files
	Index string `json:"index,omitempty"`

	// Hosts from which installs may download, besides the index's own and those that its pages name.
	// Default: none
	Hosts []string `json:"hosts,omitempty"`

	// Packages that may not be installed, not even as dependencies, besides those that are built in: the standard
	// library, known malicious names, and pip itself. Default: none
	Block []string `json:"block,omitempty"`

	// The only packages that may be installed, also as dependencies. Default: none, and any package may be installed that no
	// other rule refuses
	Allow []string `json:"allow,omitempty"`

	// Packages that are not taken for a typosquat, though their names resemble that of a popular one. Default: none
	Trust []string `json:"trust,omitempty"`

	// Whether packages that come as source are built, which runs their code in the installer: `deny` or `allow`.
	// Default: deny
	Sdist string `json:"sdist,omitempty"`

	// What one install may download, in bytes. Default: 209715200 (200 MiB)
	MaxDownload int64 `json:"max_download,omitempty"`

	// What all installed packages may hold, in bytes. Default: 2147483648 (2 GiB)
	MaxInstalled int64 `json:"max_installed,omitempty"`

	// How many installs a client may ask for within `rate_window`. Default: 10
	Rate int `json:"rate,omitempty"`

	// The time within which `rate` counts installs. Default: 1m
	RateWindow caddy.Duration `json:"rate_window,omitempty"`

	// How long one install may take, not counting its wait for earlier ones. Default: 2m
	InstallTimeout caddy.Duration `json:"install_timeout,omitempty"`

	// The directory in which packages are kept; absolute. Default: python_sandbox in Caddy's data directory
	DataDir string `json:"data_dir,omitempty"`
}

// Defaults of Packages.
const (
	defaultMaxDownload    = 200 << 20
	defaultMaxInstalled   = 2 << 30
	defaultRate           = 10
	defaultRateWindow     = time.Minute
	defaultInstallTimeout = 2 * time.Minute

	// maxRateClients bounds how many clients' installs are remembered for the rate.
	maxRateClients = 10_000
)

func (h *Handler) parsePackages(d *caddyfile.Dispenser, word string) error {
	if d.NextArg() {
		if d.Val() != "off" || d.NextArg() {
			return d.Errf("%s %q is unknown: use %s off, or a block", word, d.Val(), word)
		}
		h.Packages.Off = true
		return noBlock(d, word)
	}
	p := &h.Packages
	return h.block(d, word+" ", map[string]parser{
		"index":           stringParser(&p.Index),
		"hosts":           listParser(&p.Hosts, ", "),
		"block":           listParser(&p.Block, ", "),
		"allow":           listParser(&p.Allow, ", "),
		"trust":           listParser(&p.Trust, ", "),
		"sdist":           choiceParser(&p.Sdist, "deny", "allow"),
		"max_download":    sizeParser(&p.MaxDownload),
		"max_installed":   sizeParser(&p.MaxInstalled),
		"rate":            rateParser(&p.Rate, &p.RateWindow),
		"install_timeout": durationParser(&p.InstallTimeout),
		"data_dir":        stringParser(&p.DataDir),
	})
}

// rateParser takes a count and the time within which it counts.
func rateParser(count *int, window *caddy.Duration) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		if !d.NextArg() {
			return d.Errf("%s takes a count and a duration, such as 10 1m", word)
		}
		n, err := parseCount(d, word, d.Val())
		if err != nil {
			return err
		}
		*count = n
		return durationParser(window)(d, word)
	}
}

// withDefaults returns p with every default filled in.
func (p Packages) withDefaults() Packages {
	p.Sdist = cmp.Or(p.Sdist, "deny")
	p.MaxDownload = cmp.Or(p.MaxDownload, defaultMaxDownload)
	p.MaxInstalled = cmp.Or(p.MaxInstalled, defaultMaxInstalled)
	p.Rate = cmp.Or(p.Rate, defaultRate)
	p.RateWindow = cmp.Or(p.RateWindow, caddy.Duration(defaultRateWindow))
	p.InstallTimeout = cmp.Or(p.InstallTimeout, caddy.Duration(defaultInstallTimeout))
	p.DataDir = cmp.Or(p.DataDir, filepath.Join(caddy.AppDataDir(), "python_sandbox"))
	return p
}

// installSettings returns what bounds installs.
func (p Packages) installSettings() operation.InstallSettings {
	p = p.withDefaults()
	return operation.InstallSettings{
		Index: p.Index, Hosts: p.Hosts, BuildSource: p.Sdist == "allow", MaxDownload: p.MaxDownload, MaxInstalled: p.MaxInstalled,
		Rate: p.Rate, RateWindow: time.Duration(p.RateWindow), Timeout: time.Duration(p.InstallTimeout),
	}
}

// policy returns the rules, or an error that names the word at fault.
func (p Packages) policy() (*policy.Policy, error) {
	p = p.withDefaults()
	rules, err := policy.New(policy.Config{
		Block: p.Block, Allow: p.Allow, Trust: p.Trust, SdistAllowed: p.Sdist == "allow",
		MaxDownloadBytes: p.MaxDownload, MaxInstalledBytes: p.MaxInstalled,
	})
	if err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	return rules, nil
}

// validate checks the settings without starting a process.
func (p Packages) validate() error {
	if p.Off {
		return nil
	}
	p = p.withDefaults()
	switch {
	case p.Sdist != "deny" && p.Sdist != "allow":
		return fmt.Errorf("packages sdist %q is unknown: use deny or allow", p.Sdist)
	case p.MaxDownload < 0 || p.MaxInstalled < 0:
		return fmt.Errorf("packages max_download and max_installed are sizes above 0")
	case p.Rate < 0 || p.RateWindow < 0 || time.Duration(p.RateWindow) > 24*time.Hour:
		return fmt.Errorf("packages rate is %d within %s: choose a count of 1 or more, and a time up to 24h", p.Rate, time.Duration(p.RateWindow))
	case p.InstallTimeout < 0 || time.Duration(p.InstallTimeout) > 24*time.Hour:
		return fmt.Errorf("packages install_timeout is %s: choose a duration above 0s and up to 24h", time.Duration(p.InstallTimeout))
	case !filepath.IsAbs(p.DataDir):
		return fmt.Errorf("packages data_dir %q is not absolute: give the full path of a directory", p.DataDir)
	}
	_, err := p.policy()
	return err
}

// directory makes the directory of packages and returns it; "" when packages are off. When the operator has chosen no directory and
// the default one cannot be used, it logs a warning and returns "", so that the sandbox runs without packages.
func (p Packages) directory(log *zap.Logger) (string, error) {
	if p.Off {
		return "", nil
	}
	dir := p.withDefaults().DataDir
	_, missing := os.Stat(dir)
	err := os.MkdirAll(dir, 0o755)
	if err == nil && missing != nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-"); err == nil {
			_ = probe.Close()
			err = os.Remove(probe.Name())
		}
	}
	if err == nil {
		return dir, nil
	}
	if p.DataDir != "" {
		return "", fmt.Errorf("packages data_dir cannot be used: %w; choose a directory that Caddy may write to, or packages off", err)
	}
	log.Warn("packages are off: Caddy's data directory cannot be written to; set packages data_dir, or packages off to say so", zap.Error(err))
	return "", nil
}
