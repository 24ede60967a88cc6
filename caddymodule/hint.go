package caddymodule

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// missing is what the last line of a traceback says of a module that is not there.
var missing = regexp.MustCompile(`^(?:ModuleNotFoundError|ImportError): No module named '?([A-Za-z_][A-Za-z0-9_.]*)'?(?:;.*)?$`)

// missingModule returns the module for want of which a program ended, or "".
func missingModule(stderr string) string {
	text := strings.TrimRight(stderr, "\n")
	match := missing.FindStringSubmatch(text[strings.LastIndexByte(text, '\n')+1:])
	if match == nil || len(match[1]) > 200 {
		return ""
	}
	return match[1]
}

// hint says how a module that is missing can be had, in a sentence for a model.
func (i *installation) hint(module string) string {
	top, _, _ := strings.Cut(module, ".")
	if policy.IsStandardLibrary(top) {
		return ""
	}
	distribution := policy.Provider(module)
	known := distribution != ""
	if !known {
		distribution = policy.Guess(module)
		known = distribution != ""
	}
	if i.pool == nil {
		return fmt.Sprintf("The module %s is not installed, and this server does not install packages: do without it.", module)
	}
	if !known {
		return fmt.Sprintf("The module %s is not installed. If a package provides it, pip_install with the package's name makes it available to later executions.", module)
	}
	req, err := policy.ParseRequirement(distribution, "")
	if err != nil {
		return ""
	}
	if decision := i.policy.Check(req); !decision.Allowed {
		return fmt.Sprintf("The module %s comes with the package %s, which may not be installed here: %s", module, distribution, decision.Message)
	}
	return fmt.Sprintf("The module %s comes with the package %s: call pip_install with {\"package\": %q}, then run the code again.", module, distribution, distribution)
}
