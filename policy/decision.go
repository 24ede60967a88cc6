package policy

// Rule names the rule that refused a package. There are no other values than those below, so that a rule can label a metric.
type Rule string

// The rules, in the order in which they are applied to a request. The first that refuses decides.
const (
	// RuleNone is the rule of a Decision that allows.
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
	// RuleCount bounds the number of packages in a resolved set.
	RuleCount Rule = "count"
	// RuleYanked refuses releases that their authors have withdrawn.
	RuleYanked Rule = "yanked"
	// RuleDirect refuses dependencies that a package names by a URL of its own instead of from the index (PEP 508).
	RuleDirect Rule = "direct"
	// RuleSdist refuses source distributions, which run code of their own when they are installed.
	RuleSdist Rule = "sdist"
	// RuleHash refuses files for which the index gives no hash.
	RuleHash Rule = "hash"
	// RuleDownloadSize bounds the bytes of the files of a resolved set as they are downloaded.
	RuleDownloadSize Rule = "download_size"
	// RuleInstalledSize bounds the bytes that installed packages take on disk.
	RuleInstalledSize Rule = "installed_size"
)

// Rules lists every rule but RuleNone, in the same order. It must not be changed.
var Rules = []Rule{
	RuleStandardLibrary, RuleBlocklist, RuleMalicious, RuleInstaller, RuleAllowlist, RuleTyposquat, RuleCount, RuleYanked, RuleDirect,
	RuleSdist, RuleHash, RuleDownloadSize, RuleInstalledSize,
}

// Decision is what a Policy decides. The zero value is a refusal.
type Decision struct {
	// Allowed says that no rule refuses. Then Package is the only other field that may be set.
	Allowed bool
	// Rule is the rule that refused.
	Rule Rule
	// Package is the canonical name of the package that the decision is about: the one that was asked for, or one of its
	// dependencies. "" when the decision is about all packages together.
	Package string
	// Message says in one or two sentences which rule refused, why, and what to do instead. It can be shown to users: it
	// has names and numbers, no paths or secrets.
	Message string
	// Resembles is the package that was probably meant. "" for none.
	Resembles string
}

func allow(name string) Decision { return Decision{Allowed: true, Package: name} }

func refuse(rule Rule, name, message string) Decision {
	return Decision{Rule: rule, Package: name, Message: message}
}
