package policy

import (
	_ "embed" // the lists of data/
	"strings"
	"sync"
)

// Each list is parsed once, when it is first needed. data/README.md says where the lists come from.
var (
	//go:embed data/stdlib.txt
	stdlibText string
	//go:embed data/popular.txt
	popularText string
	//go:embed data/malicious.txt
	maliciousText string
	//go:embed data/modules.txt
	modulesText string
)

// stdlib maps the modules of the standard library of CPython 3.10 to 3.14 to the version that removed them, "" when none did.
var stdlib = sync.OnceValue(func() map[string]string { return pairs(stdlibText) })

// stdlibNames maps the canonical form of a module's name, by which pip would look for it on the index, to the module.
var stdlibNames = sync.OnceValue(func() map[string]string {
	names := make(map[string]string, len(stdlib()))
	for module := range stdlib() {
		names[Canonical(module)] = module
	}
	return names
})

// popular maps the most downloaded packages to their rank, from 0.
var popular = sync.OnceValue(func() map[string]int {
	ranks := make(map[string]int, strings.Count(popularText, "\n"))
	for name := range strings.Lines(popularText) {
		ranks[strings.TrimSpace(name)] = len(ranks)
	}
	return ranks
})

// malicious is the set of names that were published to do harm.
var malicious = sync.OnceValue(func() map[string]string { return pairs(maliciousText) })

// modules maps import names to the distributions that provide them, where the two differ.
var modules = sync.OnceValue(func() map[string]string { return pairs(modulesText) })

// moduleNames maps the canonical form of each top-level import name in modules to the name itself. It recognizes a request for an
// import name, such as cv2, instead of its distribution.
var moduleNames = sync.OnceValue(func() map[string]string {
	names := make(map[string]string, len(modules()))
	for module := range modules() {
		if !strings.Contains(module, ".") {
			names[Canonical(module)] = module
		}
	}
	return names
})

// pairs parses lines of a key and an optional value, with a blank between them.
func pairs(text string) map[string]string {
	table := make(map[string]string, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		table[key] = value
	}
	return table
}

// provided is the set of distributions that modules has as values.
var provided = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool, len(modules()))
	for _, distribution := range modules() {
		set[distribution] = true
	}
	return set
})
