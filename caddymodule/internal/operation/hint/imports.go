package hint

import (
	"regexp"
	"slices"
	"strings"
)

// missing is what Python says of a module that is not there. The name may be of a package within one that is.
var missing = regexp.MustCompile(`^No module named '?([A-Za-z_][A-Za-z0-9_.]{0,199})'?(?:;.*)?$`)

// optional are the words of libraries about a module or a package that they can do without until it is asked for.
var optional = []*regexp.Regexp{
	regexp.MustCompile(`Missing optional dependency '([A-Za-z_][A-Za-z0-9_.-]{0,99})'`),                                                    // pandas
	regexp.MustCompile("`Import ([A-Za-z_][A-Za-z0-9_.-]{0,99})` failed"),                                                                  // pandas 3
	regexp.MustCompile(`The '\.\w+' accessor requires ([a-z][A-Za-z0-9_-]{0,49})\b`),                                                       // pandas
	regexp.MustCompile(`\b([A-Za-z_][A-Za-z0-9_-]{0,49}) not found, please install it`),                                                    // pandas, before
	regexp.MustCompile(`the features you requested: (lxml|html5lib)\b`),                                                                    // Beautiful Soup
	regexp.MustCompile(`requires ([A-Za-z_][A-Za-z0-9_-]{0,49}), an optional dependency`),                                                  // seaborn
	regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]{0,49}) is (?:needed|required) for (?:plotting|this|the)\b`),                                 // SymPy
	regexp.MustCompile(`[Tt]he ['"` + "`" + `]([A-Za-z_][A-Za-z0-9_.-]{0,49})['"` + "`" + `] (?:package|library|module) is not installed`), // httpx
}

// command is the advice to install something. What follows the options is one requirement, with extras perhaps.
var command = regexp.MustCompile(`\b(?:pip3?|conda) install (?:(?:-U|--upgrade|-q|--user|-c conda-forge|--no-deps) )*['"]?([A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:\[[A-Za-z0-9 ,._-]{1,60}\])?)`)

// conda is the same in words.
var conda = regexp.MustCompile(`[Uu]se pip,? or conda to install (?:the )?([A-Za-z0-9][A-Za-z0-9._-]{0,99})`)

// wordsOnly follow "pip install" in sentences that name no package there.
var wordsOnly = []string{"as", "it", "the", "this", "them", "with", "using", "and", "or", "command", "commands", "to", "in", "a"}

// onImport says how to get a module that was missing, or a package that a library has asked for.
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

// onChain says the same of a module whose absence led to the exception.
func onChain(x exception, packages Packages) string {
	found := missingBefore.FindAllStringSubmatch(x.chain, -1)
	if len(found) == 0 || !strings.Contains(x.chain, "The above exception was the direct cause") && !strings.Contains(x.chain, "During handling of the above exception") {
		return ""
	}
	return packages.Module(found[len(found)-1][1])
}

// onMemory says what to do about memory that was refused, which a program notices where it asks for much at once.
func onMemory(x exception, limits Limits) string {
	name := x.name[strings.LastIndexByte(x.name, '.')+1:]
	if !strings.HasSuffix(name, "MemoryError") {
		return ""
	}
	return "The code asked for more memory than it may have: " + limits.Memory + ", with what it starts. " + LessMemory
}
