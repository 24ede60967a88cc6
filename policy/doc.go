// Package policy decides which Python packages a server installs when its users, often AI models, ask for them.
//
// ParseRequirement parses a request. Policy.Check judges the package that was asked for, before the index is asked.
// Policy.CheckResolved judges the resolved set, which is that package and its dependencies. A Decision that refuses names the
// rule, and says in a sentence or two what to do instead. Rate bounds how often one client may ask. Provider and Guess name the
// package of a module that could not be imported.
//
// The package is pure: it starts no process, opens no file and no connection, and gets its clock from the caller. What it
// knows of the index is a set of lists in data/, which are embedded.
//
// Words: a requirement is what was asked for, in canonical form; the resolved set is what would be installed for it; the
// blocklist and the allowlist are the operator's; a typosquat is a package whose name is a likely misspelling of another's.
package policy
