package policy

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/pep440"
)

// Config says what the operator allows to be installed. The zero value allows wheels of any size from the whole index, except
// those that the built-in lists refuse.
type Config struct {
	// Block names packages that are never installed, neither on request nor as a dependency. It has precedence over Allow
	// and Trust.
	Block []string
	// Allow names the only packages that may be installed, also as dependencies. Empty allows all. The typosquat and the
	// installer rule do not apply to the packages that it names.
	Allow []string
	// Trust names packages to which the typosquat rule does not apply. All other rules do.
	Trust []string
	// SdistAllowed admits source distributions. Default: wheels only, since building an sdist runs its author's code.
	SdistAllowed bool
	// MaxDownloadBytes bounds the files of one resolved set together. 0 is no bound.
	MaxDownloadBytes int64
	// MaxInstalledBytes bounds the bytes that CheckInstalledSize accepts. 0 is no bound.
	MaxInstalledBytes int64
	// MaxPackages bounds the packages of one resolved set, the one asked for included. Default: 200.
	MaxPackages int
}

// Policy applies a Config. New makes it. It is immutable, and so safe for concurrent use.
type Policy struct {
	config              Config
	block, allow, trust map[string]bool
	squats              func() *squats
}

// seedBlock are standard modules that give code access to its process and to the system. A package of such a name can only be an
// imitation, so these names are on every blocklist.
var seedBlock = []string{"os", "subprocess", "sys", "importlib", "ctypes", "multiprocessing", "threading"}

// backports are packages with the name of a module of the standard library that other packages still depend on, from the time
// when Python did not have the module yet (Zope's DateTime is older than datetime). They are allowed as dependencies, or the
// packages that need them could not be installed. They shadow no module as long as packages come after the standard library
// on sys.path.
var backports = map[string]bool{
	"argparse": true, "asyncio": true, "configparser": true, "contextvars": true, "dataclasses": true, "datetime": true,
	"ipaddress": true, "pathlib": true, "readline": true, "statistics": true, "typing": true, "uuid": true, "wsgiref": true,
}

// installers are tools that install or build packages. A request must not replace them.
var installers = map[string]bool{"pip": true, "setuptools": true, "wheel": true, "uv": true, "distribute": true}

const defaultMaxPackages = 200

// New returns the Policy of a Config, or an error that names the setting at fault and the remedy. The names in the Config need not
// be canonical.
func New(config Config) (*Policy, error) {
	p := &Policy{config: config, squats: popularSquats}
	for _, list := range []struct {
		word  string
		names []string
		set   *map[string]bool
	}{{"block", config.Block, &p.block}, {"allow", config.Allow, &p.allow}, {"trust", config.Trust, &p.trust}} {
		*list.set = make(map[string]bool, len(list.names))
		for _, name := range list.names {
			if !isName(name) {
				return nil, fmt.Errorf(
					`packages %s %q is not a package name: use a name alone, such as "requests", without version or `+
						`extras`, list.word, name)
			}
			(*list.set)[Canonical(name)] = true
		}
	}
	for _, name := range seedBlock {
		p.block[name] = true
	}
	for _, bound := range []struct {
		word  string
		value int64
	}{
		{"max_download", config.MaxDownloadBytes},
		{"max_installed", config.MaxInstalledBytes},
		{"count", int64(config.MaxPackages)},
	} {
		if bound.value < 0 {
			return nil, fmt.Errorf("packages %s is %d: choose a value above 0, or leave it out", bound.word, bound.value)
		}
	}
	if p.config.MaxPackages == 0 {
		p.config.MaxPackages = defaultMaxPackages
	}
	return p, nil
}

// Check judges a requirement by its name alone, without the index. It is safe for concurrent use. The first call in a process
// builds the table of popular names, which takes some 50 ms.
func (p *Policy) Check(r Requirement) Decision {
	name := r.Name
	if module, found := stdlibNames()[name]; found {
		return refuse(RuleStandardLibrary, name, inStandardLibrary(module))
	}
	if d := p.checkName(name, ""); !d.Allowed {
		return d
	}
	if p.allow[name] {
		return allow(name) // the rules below do not apply to packages on the allowlist
	}
	if installers[name] {
		return refuse(RuleInstaller, name, fmt.Sprintf(
			"%q installs other packages here and is not replaced by a request: ask for the packages you need, and "+
				"what they need of it comes along.", name))
	}
	if len(p.allow) > 0 {
		return refuse(RuleAllowlist, name, fmt.Sprintf(
			"%q is not on the operator's allowlist, and nothing else is installed here: work with a package that is, "+
				"or the operator can add it with \"packages { allow %s }\".", name, name))
	}
	return p.checkTyposquat(name)
}

// checkName applies the rules that hold for requested packages and dependencies alike. by is the package that needs name, "" when
// name itself was requested.
func (p *Policy) checkName(name, by string) Decision {
	subject := fmt.Sprintf("%q", name)
	if by != "" {
		subject = fmt.Sprintf("%q needs %q, which", by, name)
	}
	if p.block[name] {
		return refuse(RuleBlocklist, name, subject+" is on the blocklist of this server and never installed: use another package.")
	}
	if _, found := malicious()[name]; found {
		d := refuse(RuleMalicious, name, subject+
			" is listed as malicious and never installed: check the spelling, or use another package.")
		if d.Resembles = p.squats().find(name); d.Resembles != "" {
			d.Message = fmt.Sprintf("%s is listed as malicious and never installed: did you mean %q?", subject, d.Resembles)
		}
		return d
	}
	return allow(name)
}

// checkTyposquat is for requested packages only: the name of a dependency was chosen by a package's author, not typed in a
// request.
func (p *Policy) checkTyposquat(name string) Decision {
	if p.trust[name] || isPopular(name) {
		return allow(name)
	}
	remedy := fmt.Sprintf("If it is meant, the operator can allow it with \"packages { trust %s }\".", name)
	if module, found := moduleNames()[name]; found && Provider(module) != name {
		d := refuse(RuleTyposquat, name, fmt.Sprintf(
			"%q is what code imports, and the package that provides it is %q: did you mean that? %s", module, Provider(module), remedy))
		d.Resembles = Provider(module)
		return d
	}
	resembled := p.squats().find(name)
	if resembled == "" || provided()[name] {
		return allow(name)
	}
	d := refuse(RuleTyposquat, name, fmt.Sprintf(
		"%q resembles the popular package %q: did you mean that? %s", name, resembled, remedy))
	d.Resembles = resembled
	return d
}

func inStandardLibrary(module string) string {
	gone := stdlib()[module]
	switch provider := Provider(module); {
	case gone == "":
		return fmt.Sprintf("%q is part of Python's standard library: import it, there is nothing to install.", module)
	case provider != "" && !installers[provider]:
		return fmt.Sprintf(
			"%q was part of Python's standard library until %s, which removed it: import it on an older Python, or "+
				"ask for %q, which provides it.", module, gone, provider)
	}
	return fmt.Sprintf(
		"%q was part of Python's standard library until %s, which removed it: no package of that name replaces it, "+
			"so write the code without it.", module, gone)
}

// Resolved is one package of a resolved set, as the index describes the file that would be installed.
type Resolved struct {
	// Name need not be canonical.
	Name    string
	Version string
	// DownloadBytes is the size of the file; -1 when the index does not say it.
	DownloadBytes int64
	// Hashed says that the index gave a hash, against which the download will be checked.
	Hashed bool
	// Wheel is false for a source distribution.
	Wheel bool
	// Yanked says that the author withdrew the release (PEP 592).
	Yanked bool
	// Direct says that another package names it by a URL of its own instead of from the index (PEP 508).
	Direct bool
}

// CheckResolved judges the set that would be installed for a requirement: the package itself, by Check, and its dependencies.
// It is safe for concurrent use.
//
// The rules about the blocklist, malicious names and the allowlist hold for dependencies, too. So does the rule about the
// standard library, except for a few old backports. Dependencies may be installers such as setuptools. A file of unknown size
// counts as 0 bytes towards MaxDownloadBytes, so the downloader must count the bytes that arrive. As with pip, a yanked
// release is allowed only when the request names exactly its version.
func (p *Policy) CheckResolved(asked Requirement, set []Resolved) Decision {
	if d := p.Check(asked); !d.Allowed {
		return d
	}
	if len(set) > p.config.MaxPackages {
		return refuse(RuleCount, asked.Name, fmt.Sprintf(
			"%q needs %d packages together, and at most %d are installed at once: ask for a package or extra that needs less.", asked.Name, len(set), p.config.MaxPackages))
	}
	for _, member := range set {
		name := Canonical(member.Name)
		if name == asked.Name {
			continue
		}
		if d := p.checkDependency(name, asked.Name); !d.Allowed {
			return d
		}
	}
	var bytes uint64
	for _, member := range set {
		if d := p.checkFile(member, asked); !d.Allowed {
			return d
		}
		bytes = min(bytes+uint64(max(member.DownloadBytes, 0)), math.MaxInt64) // must not overflow: the index may state any size
	}
	if bound := uint64(p.config.MaxDownloadBytes); bound > 0 && bytes > bound {
		return refuse(RuleDownloadSize, asked.Name, fmt.Sprintf(
			"%q and what it needs are %s to download, and at most %s are allowed: ask for a smaller package or "+
				"version, or the operator can raise \"packages { max_download }\".", asked.Name, humanize.IBytes(bytes), humanize.IBytes(bound)))
	}
	return allow(asked.Name)
}

func (p *Policy) checkDependency(name, by string) Decision {
	if d := p.checkName(name, by); !d.Allowed {
		return d
	}
	if _, found := stdlibNames()[name]; found && !backports[name] {
		return refuse(RuleStandardLibrary, name, fmt.Sprintf(
			"%q needs %q, which is named like a module of Python's standard library and not known as a backport of "+
				"it: use another package.", by, name))
	}
	if len(p.allow) > 0 && !p.allow[name] {
		return refuse(RuleAllowlist, name, fmt.Sprintf(
			"%q needs %q, which is not on the operator's allowlist: work with another package, or the operator can "+
				"add it with \"packages { allow %s }\".", by, name, name))
	}
	return allow(name)
}

// checkFile applies the rules about the file of one package.
func (p *Policy) checkFile(member Resolved, asked Requirement) Decision {
	name := Canonical(member.Name)
	subject := fmt.Sprintf("%q %s", name, quote(member.Version))
	if name != asked.Name {
		subject = fmt.Sprintf("%q needs %s, which", asked.Name, subject)
	}
	switch {
	case member.Direct:
		return refuse(RuleDirect, name, fmt.Sprintf(
			"%q needs %q from an address of its own instead of the index, which is not allowed: ask for another version or another package.", asked.Name, name))
	case member.Yanked && !(name == asked.Name && asked.pinned()):
		return refuse(RuleYanked, name, subject+" has been withdrawn by its author (yanked): ask for another version.")
	case !member.Wheel && !p.config.SdistAllowed:
		return refuse(RuleSdist, name, subject+
			" is offered as a source distribution only, and those run code when they are installed: ask for a "+
			"version that has a wheel for this Python, or the operator can allow it with \"packages { sdist }\".")
	case !member.Hashed:
		return refuse(RuleHash, name, subject+
			" has no hash on the index, so its file cannot be verified: use another package or version.")
	}
	return allow(name)
}

// CheckInstalledSize judges how many bytes all installed packages together would take on disk. It is safe for concurrent use.
func (p *Policy) CheckInstalledSize(bytes int64) Decision {
	if bound := p.config.MaxInstalledBytes; bound > 0 && bytes > bound {
		return refuse(RuleInstalledSize, "", fmt.Sprintf(
			"The installed packages would take %s, and at most %s are allowed: ask for a smaller package, or the "+
				"operator can raise \"packages { max_installed }\" or remove packages.", humanize.IBytes(uint64(bytes)), humanize.IBytes(uint64(bound))))
	}
	return allow("")
}

// pinned reports whether a requirement names exactly one version.
func (r Requirement) pinned() bool {
	clauses, err := pep440.ParseSpecifier(r.Specifier)
	return err == nil && clauses.Pinned()
}
