// Package python holds the Python of ours that runs in templates, lanes, workers and installers.
package python

import "embed"

// Sources are the modules, by their file names.
//
//go:embed *.py
var Sources embed.FS
