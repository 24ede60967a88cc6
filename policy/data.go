package policy

import (
	_ "embed" // the lists of data/
	"strings"
	"sync"
)

// The lists are parsed once, when the first check needs them. data/README.md says where they come from.
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

// stdlib maps the modules of the standard library of CPython 3.10 to 3.14 to the version that removed them, "" for none.
var stdlib = sync.OnceValue(func() map[string]string { return pairs(stdlibText) })

// stdlibNames maps the canonical names of stdlib to its modules: what pip would look for when asked for one.
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

// moduleNames maps the canonical form of top-level import names to the names themselves, for requests that confuse the two.
var moduleNames = sync.OnceValue(func() map[string]string {
	names := make(map[string]string, len(modules()))
	for module := range modules() {
		if !strings.Contains(module, ".") {
			names[Canonical(module)] = module
		}
	}
	return names
})

// pairs parses lines of a key and an optional value.
func pairs(text string) map[string]string {
	table := make(map[string]string, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		table[key] = value
	}
	return table
}

// provided is the set of distributions that modules names.
var provided = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool, len(modules()))
	for _, distribution := range modules() {
		set[distribution] = true
	}
	return set
})
