package hint

import (
	"regexp"
	"slices"
	"strings"
)

// missing matches what Python says of a module that it cannot find, which may be a submodule of a package that exists.
var missing = regexp.MustCompile(`^No module named '?([A-Za-z_][A-Za-z0-9_.]{0,199})'?(?:;.*)?$`)

// optional match what libraries say of an optional dependency that is missing.
var optional = []*regexp.Regexp{
	regexp.MustCompile(`Missing optional dependency '([A-Za-z_][A-Za-z0-9_.-]{0,99})'`),                                                    // pandas
	regexp.MustCompile("`Import ([A-Za-z_][A-Za-z0-9_.-]{0,99})` failed"),                                                                  // pandas 3
	regexp.MustCompile(`The '\.\w+' accessor requires ([a-z][A-Za-z0-9_-]{0,49})\b`),                                                       // pandas
	regexp.MustCompile(`\b([A-Za-z_][A-Za-z0-9_-]{0,49}) not found, please install it`),                                                    // older pandas
	regexp.MustCompile(`the features you requested: (lxml|html5lib)\b`),                                                                    // Beautiful Soup
	regexp.MustCompile(`requires ([A-Za-z_][A-Za-z0-9_-]{0,49}), an optional dependency`),                                                  // seaborn
	regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]{0,49}) is (?:needed|required) for (?:plotting|this|the)\b`),                                 // SymPy
	regexp.MustCompile(`[Tt]he ['"` + "`" + `]([A-Za-z_][A-Za-z0-9_.-]{0,49})['"` + "`" + `] (?:package|library|module) is not installed`), // httpx
}

// command matches the advice to run pip or conda install. Its group is one requirement, perhaps with extras.
var command = regexp.MustCompile(`\b(?:pip3?|conda) install (?:(?:-U|--upgrade|-q|--user|-c conda-forge|--no-deps) )*['"]?([A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:\[[A-Za-z0-9 ,._-]{1,60}\])?)`)

// conda matches advice to use pip or conda that is no command.
var conda = regexp.MustCompile(`[Uu]se pip,? or conda to install (?:the )?([A-Za-z0-9][A-Za-z0-9._-]{0,99})`)

// wordsOnly are words that follow "pip install" in a sentence and name no package.
var wordsOnly = []string{"as", "it", "the", "this", "them", "with", "using", "and", "or", "command", "commands", "to", "in", "a"}

// onImport returns the hint about a module that is missing, or a package that a library asks for.
func onImport(x exception, packages Packages) string {
	if x.is("ModuleNotFoundError", "ImportError") {
		first, _, _ := strings.Cut(x.message, "\n")
		if found := missing.FindStringSubmatch(first); found != nil {
			return packages.Module(found[1])
		}
	}
	for _, words := range optional {
		if found := words.FindStringSubmatch(x.message); found != nil {
			return packages.Module(strings.TrimRight(found[1], "."))
		}
	}
	if strings.HasPrefix(x.message, "Missing dependencies for SOCKS support") { // requests
		return packages.Requirements([]string{"requests[socks]"})
	}
	for _, words := range []*regexp.Regexp{command, conda} {
		for _, found := range words.FindAllStringSubmatch(x.message, maxNames) {
			if name := strings.TrimRight(found[1], "."); !slices.Contains(wordsOnly, name) {
				return packages.Requirements([]string{name})
			}
		}
	}
	return ""
}

var missingBefore = regexp.MustCompile(`(?m)^(?:ModuleNotFoundError|ImportError): No module named '([A-Za-z_][A-Za-z0-9_.]{0,199})'`)

// onChain returns the hint about a missing module that led to the exception, by an earlier one in the chain.
func onChain(x exception, packages Packages) string {
	found := missingBefore.FindAllStringSubmatch(x.chain, -1)
	if len(found) == 0 || !strings.Contains(x.chain, "The above exception was the direct cause") && !strings.Contains(x.chain, "During handling of the above exception") {
		return ""
	}
	return packages.Module(found[len(found)-1][1])
}

// onMemory returns the hint about a MemoryError, which a program gets when it asks for much memory at once.
func onMemory(x exception, limits Limits) string {
	name := x.name[strings.LastIndexByte(x.name, '.')+1:]
	if !strings.HasSuffix(name, "MemoryError") {
		return ""
	}
	return "The code asked for more memory than it may have: " + limits.Memory + ", with what it starts. " + LessMemory
}
