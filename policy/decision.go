package policy

// Rule names what decided. The set is closed, so that a rule can label a metric.
type Rule string

// The rules, in the order in which a request meets them. The first that refuses decides.
const (
	// RuleNone stands for no objection.
	RuleNone Rule = ""
	// RuleStandardLibrary refuses the names of modules that come with Python.
	RuleStandardLibrary Rule = "standard_library"
	// RuleBlocklist refuses what Config.Block names, and a few module names that no package may carry.
	RuleBlocklist Rule = "blocklist"
	// RuleMalicious refuses names that were published to do harm.
	RuleMalicious Rule = "malicious"
	// RuleInstaller refuses to replace the tools that install packages.
	RuleInstaller Rule = "installer"
	// RuleAllowlist refuses what Config.Allow does not name.
	RuleAllowlist Rule = "allowlist"
	// RuleTyposquat refuses a request for a name that resembles a popular one.
	RuleTyposquat Rule = "typosquat"
	// RuleCount bounds the packages of a resolved set.
	RuleCount Rule = "count"
	// RuleYanked refuses releases that their authors have withdrawn.
	RuleYanked Rule = "yanked"
	// RuleDirect refuses what another package names by an address of its own, past the index.
	RuleDirect Rule = "direct"
	// RuleSdist refuses source distributions, which run code of their own when they are installed.
	RuleSdist Rule = "sdist"
	// RuleHash refuses files that the index gives no hash for.
	RuleHash Rule = "hash"
	// RuleDownloadSize bounds the bytes of a resolved set as they are downloaded.
	RuleDownloadSize Rule = "download_size"
	// RuleInstalledSize bounds the bytes that installed packages take on disk.
	RuleInstalledSize Rule = "installed_size"
)

// Rules lists every rule but RuleNone, in the same order. Not to be changed.
var Rules = []Rule{
	RuleStandardLibrary, RuleBlocklist, RuleMalicious, RuleInstaller, RuleAllowlist, RuleTyposquat, RuleCount, RuleYanked, RuleDirect,
	RuleSdist, RuleHash, RuleDownloadSize, RuleInstalledSize,
}

// Decision is what a policy says. The zero value allows nothing.
type Decision struct {
	// Allowed says that there is no objection; the fields below are empty then, save Package.
	Allowed bool
	// Rule is what refused.
	Rule Rule
	// Package is the canonical name of the package in question: the one that was asked for, or one that it needs. "" when a
	// refusal is of no single package.
	Package string
	// Message says in one or two sentences which rule refused, why, and what to do instead. Fit to be shown to users: it
	// holds names and numbers, no paths or secrets.
	Message string
	// Resembles is the popular package that was probably meant. "" for none.
	Resembles string
}

func allow(name string) Decision { return Decision{Allowed: true, Package: name} }

func refuse(rule Rule, name, message string) Decision {
	return Decision{Rule: rule, Package: name, Message: message}
}
