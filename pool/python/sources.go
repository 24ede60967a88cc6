// Package python embeds the sandbox's own Python, which runs in templates, lanes, workers and installers.
package python

import "embed"

// Sources has each module as a file of that name, such as worker.py.
//
//go:embed *.py
var Sources embed.FS
