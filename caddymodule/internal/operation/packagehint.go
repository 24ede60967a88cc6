package operation

import (
	"fmt"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/hint"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// packageHints say how programs get packages, in sentences for a model.
type packageHints struct {
	*Installs
	// who names the programs that can import a package once it is installed; then says what to do after the install.
	who, then string
	// stale says that packages have been installed that the program does not see yet.
	stale bool
}

// Hints returns the hints for programs that run in a process of their own.
func (i *Installs) Hints() hint.Packages {
	return packageHints{Installs: i, who: "to later executions", then: "run the code again"}
}

// KernelHints returns a function that makes the hints for a kernel, whose process keeps the packages of the generation with which it
// has started. current returns the generation that a new process would have.
func (i *Installs) KernelHints(current func() int) func(generation int) hint.Packages {
	return func(generation int) hint.Packages {
		return packageHints{i, "to kernels that are started or restarted after it", "restart this kernel and run the code again", generation != current()}
	}
}

// Module says how to get a module that is missing.
func (h packageHints) Module(module string) string {
	top, _, _ := strings.Cut(module, ".")
	if policy.IsStandardLibrary(top) {
		return ""
	}
	distribution := policy.Guess(module)
	switch {
	case h.stale:
		return h.restart(module)
	case h.Runner == nil:
		return fmt.Sprintf("The module %s is not installed, and this server does not install packages: do without it.", module)
	case distribution == "":
		return fmt.Sprintf("The module %s is not installed. If a package provides it, pip_install with the package's name makes it available %s.", module, h.who)
	}
	asked, refused := h.requirements([]string{distribution})
	switch {
	case refused != "":
		return fmt.Sprintf("The module %s comes with the package %s, which may not be installed here: %s", module, distribution, refused)
	case len(asked) == 0:
		return ""
	}
	return fmt.Sprintf("The module %s comes with the package %s: %s.", module, distribution, h.install(asked))
}

// Requirements says how to get packages that a library asks for.
func (h packageHints) Requirements(names []string) string {
	asked, refused := h.requirements(names)
	switch {
	case len(asked) == 0 && refused == "":
		return ""
	case h.stale:
		return h.restart(strings.Join(asked, ", "))
	case h.Runner == nil:
		return fmt.Sprintf("The package %s is not installed, and this server does not install packages: do without it.", strings.Join(asked, ", "))
	case refused != "":
		return "A package that the code needs may not be installed here: " + refused
	}
	return fmt.Sprintf("The code needs the package %s: %s.", strings.Join(asked, ", "), h.install(asked))
}

// Pip says what to do instead of running pip inside a program.
func (h packageHints) Pip(names []string) string {
	const why = "A program's pip has no network and cannot install anything"
	asked, refused := h.requirements(names)
	switch {
	case h.Runner == nil:
		return why + ", and this server does not install packages: do without them."
	case refused != "":
		return why + ", and a package that the code wants may not be installed here at all: " + refused
	case len(asked) == 0:
		return why + ": call pip_install with the package's name, then " + h.then + " without it."
	}
	return why + ": " + h.install(asked) + " without it."
}

// restart is the hint for a kernel that does not see packages that were installed after its start.
func (h packageHints) restart(what string) string {
	if what == "" {
		what = "something"
	}
	return fmt.Sprintf("Packages have been installed since the process of this kernel started, which does not see them: restart the kernel, then run the code again. If %s is still missing, the hint will say what to do.", what)
}

// install says how to call pip_install for packages, and what to do after that.
func (h packageHints) install(packages []string) string {
	calls := make([]string, len(packages))
	for n, name := range packages {
		calls[n] = fmt.Sprintf(`{"package": %q}`, name)
	}
	if len(calls) == 1 {
		return "call pip_install with " + calls[0] + ", then " + h.then
	}
	return "call pip_install with " + strings.Join(calls[:len(calls)-1], ", with ") + " and with " + calls[len(calls)-1] + ", then " + h.then
}

// maxHintName is the longest name that a hint repeats, in bytes. Names of real packages are shorter.
const maxHintName = 100

// requirements returns those of names, which come from a program and may be anything, that are well formed; and the reason, if one of
// them may not be installed.
func (h packageHints) requirements(names []string) (asked []string, refused string) {
	for _, name := range names {
		req, err := policy.ParseRequirement(name, "")
		if err != nil || len(req.String()) > maxHintName || req.Name == "pip" {
			continue
		}
		if h.Policy != nil && refused == "" {
			if decision := h.Policy.Check(req); !decision.Allowed {
				refused = decision.Message
			}
		}
		asked = append(asked, req.String())
	}
	return asked, refused
}

var _ hint.Packages = packageHints{}
