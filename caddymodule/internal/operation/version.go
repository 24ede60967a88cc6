package operation

import (
	"runtime/debug"
	"sync"
)

// Version is this module's version in the running binary, whether it is the main module or was added by xcaddy.
var Version = sync.OnceValue(func() string {
	const (
		modulePath = "github.com/caddy-python-sandbox/caddy-python-sandbox"
		unknown    = "(devel)"
	)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	version := unknown
	if info.Main.Path == modulePath {
		version = info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath {
			version = dep.Version
		}
	}
	if version == "" {
		return unknown
	}
	return version
})
