// Package policy decides which Python packages a server installs when its users, often AI models, ask for them.
//
// ParseRequirement reads a request; Policy.Check judges what was asked for, before anything is looked up; and
// Policy.CheckResolved judges the resolved set, which is that package and all that it needs. Each Decision names its rule and, when it is a
// refusal, says in a sentence or two what to do instead. Rate bounds how often one client may ask. Provider and Guess name the
// package behind a module that could not be imported.
//
// The package is pure: it starts no process, opens no file and no connection, and is handed its clock. What it knows of the
// index is a set of lists in data/, compiled in.
//
// Words: a requirement is what was asked for, in canonical form; the resolved set is what would be installed for it; the
// blocklist and the allowlist are the operator's; a typosquat is a package whose name lives off a slip in another's.
package policy
