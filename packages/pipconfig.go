package packages

import (
	"cmp"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// defaultPipTimeout is pip's own default.
	defaultPipTimeout = 15 * time.Second
	// defaultPipRetries is lower than pip's five, since a client waits for the install.
	defaultPipRetries = 2
)

// PipConfig is what pip's configuration says about indexes. URLs and Proxy may have passwords, so a PipConfig must not be logged.
type PipConfig struct {
	// IndexURL is index-url; "" stands for DefaultIndexURL.
	IndexURL string
	// DefaultIndexURL is the index that pip uses without a configuration: PyPI.simple_url in its module
	// pip._internal.models.index.
	DefaultIndexURL string
	// ExtraIndexURLs is extra-index-url.
	ExtraIndexURLs []string
	// NoIndex says that only FindLinks are used.
	NoIndex bool
	// FindLinks lists local directories, and URLs of pages and files.
	FindLinks []string
	// TrustedHosts lists HOST or HOST:PORT whose certificates are not checked, and with which plain HTTP is allowed.
	TrustedHosts []string
	// Cert is a file of CA certificates, or a directory of such files, that replaces the system's. "" is the system's.
	Cert string
	// ClientCert is a PEM file with a private key and its certificate. "" is none.
	ClientCert string
	// Proxy is the URL of the outgoing proxy; "" is the one that the environment names.
	Proxy string
	// Timeout is how long to wait for an index that sends nothing. Default: 15 s, as pip's.
	Timeout time.Duration
	// Retries is how often a failed request of pip is repeated. Default: 2; negative is never.
	Retries int
	// Pre lets pip choose pre-releases.
	Pre bool
	// PreferBinary lets pip choose an older wheel over a newer source distribution.
	PreferBinary bool
	// Constraints lists paths or URLs of files that constrain the versions.
	Constraints []string
}

// ParsePipConfig reads the output of `pip config list`, with pip's precedence for `pip install`: the environment overrides the
// section install, which overrides global. As with pip, a later list replaces an earlier one. What cannot be read is ignored.
func ParsePipConfig(list string) PipConfig {
	sections := map[string][][2]string{}
	for line := range strings.Lines(list) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), "=")
		section, name, _ := strings.Cut(key, ".")
		if value, ok := parsePythonString(text); ok && value != "" { // pip ignores empty values
			sections[section] = append(sections[section], [2]string{name, value})
		}
	}
	var c PipConfig
	for _, section := range []string{"global", "install", ":env:"} {
		for _, option := range sections[section] {
			c.set(option[0], option[1])
		}
	}
	return c
}

// set applies one option, under any of the long names that pip has for it.
func (c *PipConfig) set(name, value string) {
	switch name {
	case "index-url", "pypi-url":
		c.IndexURL = value
	case "extra-index-url":
		c.ExtraIndexURLs = strings.Fields(value)
	case "no-index":
		setBool(&c.NoIndex, value)
	case "find-links":
		c.FindLinks = strings.Fields(value)
	case "trusted-host":
		c.TrustedHosts = strings.Fields(value)
	case "cert":
		c.Cert = value
	case "client-cert":
		c.ClientCert = value
	case "proxy":
		c.Proxy = value
	case "timeout", "default-timeout":
		if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 && seconds <= 3600 {
			c.Timeout = time.Duration(math.Ceil(seconds * float64(time.Second)))
		}
	case "retries":
		if n, err := strconv.Atoi(value); err == nil && n >= 0 {
			c.Retries = cmp.Or(min(n, 10), -1)
		}
	case "pre":
		setBool(&c.Pre, value)
	case "prefer-binary":
		setBool(&c.PreferBinary, value)
	case "constraint":
		c.Constraints = strings.Fields(value)
	}
}

// setBool sets b when value is one of the words that pip's strtobool accepts.
func setBool(b *bool, value string) {
	switch strings.ToLower(value) {
	case "y", "yes", "t", "true", "on", "1":
		*b = true
	case "n", "no", "f", "false", "off", "0":
		*b = false
	}
}

func (c PipConfig) timeout() time.Duration { return cmp.Or(max(c.Timeout, 0), defaultPipTimeout) }

func (c PipConfig) retries() int { return max(cmp.Or(c.Retries, defaultPipRetries), 0) }

// Environment returns the environment variables that give a pip the same settings when it cannot read the configuration files,
// and that keep it from asking questions. They may have passwords in URLs. Proxy is left out, since a confined pip reaches
// the network through a Proxy of this package.
func (c PipConfig) Environment() []string {
	env := []string{
		"PIP_CONFIG_FILE=" + os.DevNull, "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1",
		"PIP_DEFAULT_TIMEOUT=" + strconv.FormatFloat(c.timeout().Seconds(), 'f', -1, 64),
		"PIP_RETRIES=" + strconv.Itoa(c.retries()),
	}
	add := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	flag := func(name string, on bool) {
		if on {
			add(name, "1")
		}
	}
	add("PIP_INDEX_URL", cmp.Or(c.IndexURL, c.DefaultIndexURL))
	add("PIP_EXTRA_INDEX_URL", strings.Join(c.ExtraIndexURLs, " "))
	flag("PIP_NO_INDEX", c.NoIndex)
	add("PIP_FIND_LINKS", joinPlaces(c.FindLinks))
	add("PIP_TRUSTED_HOST", strings.Join(c.TrustedHosts, " "))
	add("PIP_CERT", absolutePath(c.Cert))
	add("PIP_CLIENT_CERT", absolutePath(c.ClientCert))
	flag("PIP_PRE", c.Pre)
	flag("PIP_PREFER_BINARY", c.PreferBinary)
	add("PIP_CONSTRAINT", joinPlaces(c.Constraints))
	return env
}

// joinPlaces joins paths and URLs to one value. Paths become absolute, since pip will run in another working directory, and a
// path with white space becomes a URL, since white space separates values.
func joinPlaces(places []string) string {
	var out []string
	for _, place := range places {
		if !strings.Contains(place, "://") && !strings.HasPrefix(place, "file:") {
			if place = absolutePath(place); strings.ContainsAny(place, " \t\r\n\v\f") {
				place = fileURL(place)
			}
		}
		out = append(out, place)
	}
	return strings.Join(out, " ")
}

// absolutePath makes a path absolute, and replaces a ~ at its start by the home directory, as pip does. "" stays "".
func absolutePath(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		if home, err := os.UserHomeDir(); err == nil {
			path = filepath.Join(home, path[1:])
		}
	}
	if path != "" {
		if absolute, err := filepath.Abs(path); err == nil {
			return absolute
		}
	}
	return path
}

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// parsePythonString parses the repr of a Python str. It returns false when text is none.
func parsePythonString(text string) (string, bool) {
	if len(text) < 2 || text[0] != '\'' && text[0] != '"' || text[len(text)-1] != text[0] {
		return "", false
	}
	quote, rest := text[0], text[1:len(text)-1]
	var b strings.Builder
	for rest != "" {
		c := rest[0]
		if c == quote {
			return "", false
		}
		if c != '\\' {
			b.WriteByte(c)
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 {
			return "", false
		}
		escape, digits := rest[1], 0
		rest = rest[2:]
		switch escape {
		case '\\', '\'', '"':
			b.WriteByte(escape)
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			return "", false
		}
		if digits == 0 {
			continue
		}
		if len(rest) < digits {
			return "", false
		}
		n, err := strconv.ParseUint(rest[:digits], 16, 32)
		if err != nil {
			return "", false
		}
		rest = rest[digits:]
		switch {
		case n >= 0xdc80 && n <= 0xdcff: // a surrogate, which stands for a byte that is not UTF-8 (PEP 383)
			b.WriteByte(byte(n))
		case utf8.ValidRune(rune(n)):
			b.WriteRune(rune(n))
		default:
			return "", false
		}
	}
	return b.String(), true
}
