package policy

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/pep440"
)

// Config is what an operator lets be installed. Its zero value allows wheels of any size from the whole index, less what
// the built-in lists refuse.
type Config struct {
	// Block names packages that are never installed, neither asked for nor as a dependency. It wins over Allow and Trust.
	Block []string
	// Allow names the only packages that may be installed, dependencies among them. Empty: all may be. What it names may
	// resemble a popular package, or be an installer such as setuptools.
	Allow []string
	// Trust names packages that the operator vouches for: the typosquat rule leaves them alone, and no other rule does.
	Trust []string
	// SdistAllowed admits source distributions. Default: wheels only, as building an sdist runs code of its author.
	SdistAllowed bool
	// MaxDownloadBytes bounds the files of one resolved set together. 0: no bound.
	MaxDownloadBytes int64
	// MaxInstalledBytes bounds what CheckInstalledSize is given. 0: no bound.
	MaxInstalledBytes int64
	// MaxPackages bounds the packages of one resolved set, the one asked for included. Default: 200.
	MaxPackages int
}

// Policy applies a Config. Made by New; immutable, so safe for concurrent use.
type Policy struct {
	config              Config
	block, allow, trust map[string]bool
	squats              func() *squats
}

// seedBlock are modules by which code reaches its process and system. Packages of these names imitate them.
var seedBlock = []string{"os", "subprocess", "sys", "importlib", "ctypes", "multiprocessing", "threading"}

// backports are packages named like a module of the standard library that others still ask for, from the time when Python
// had no such module yet (DateTime is of Zope, and older than the module). Python looks in its own library first, so they
// shadow nothing as long as packages come after it on sys.path; refusing them would refuse what needs them.
var backports = map[string]bool{
	"argparse": true, "asyncio": true, "configparser": true, "contextvars": true, "dataclasses": true, "datetime": true,
	"ipaddress": true, "pathlib": true, "readline": true, "statistics": true, "typing": true, "uuid": true, "wsgiref": true,
}

// installers are the tools that a generation of packages is built with.
var installers = map[string]bool{"pip": true, "setuptools": true, "wheel": true, "uv": true, "distribute": true}

const defaultMaxPackages = 200

// New returns the policy of a Config, or an error that names the word at fault and the remedy. Names need not be canonical.
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

// Check judges a requirement by its name, before anything is looked up on the index. Safe for concurrent use; the first call
// builds the index of popular names, which takes some 50 ms.
func (p *Policy) Check(r Requirement) Decision {
	name := r.Name
	if module, found := stdlibNames()[name]; found {
		return refuse(RuleStandardLibrary, name, inStandardLibrary(module))
	}
	if d := p.checkName(name, ""); !d.Allowed {
		return d
	}
	if p.allow[name] {
		return allow(name) // by name: that answers the rules below too
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

// checkName asks the rules that hold for every package. by is what needs it, "" for what was asked for itself.
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

// checkTyposquat looks at what was asked for only: dependencies were named by an author, not typed in a request.
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
	// DownloadBytes is the size of the file. -1: the index does not say.
	DownloadBytes int64
	// Hashed says that the index gave a hash, which the download is held to.
	Hashed bool
	// Wheel is false for a source distribution.
	Wheel bool
	// Yanked says that the author withdrew the release (PEP 592).
	Yanked bool
	// Direct says that another package names it by an address of its own instead of the index.
	Direct bool
}

// CheckResolved judges the set that would be installed for a requirement: the package itself, by Check, and all that it needs.
//
// Blocklist, malicious names and allowlist hold for dependencies too; so do standard-library names, save those of a few old
// backports, and not the installers, which packages may depend on. Files of unknown size count as nothing towards
// MaxDownloadBytes: whoever downloads them has to count. A yanked release passes only when it was asked for by exactly its
// version, as with pip.
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
		bytes = min(bytes+uint64(max(member.DownloadBytes, 0)), math.MaxInt64) // an index may say anything
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

// checkFile asks the rules about the file of one package.
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

// CheckInstalledSize judges how many bytes the packages would take on disk, all together.
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
