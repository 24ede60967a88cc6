package operation

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// missing is what the last line of a traceback says of a module that is not there.
var missing = regexp.MustCompile(`^(?:ModuleNotFoundError|ImportError): No module named '?([A-Za-z_][A-Za-z0-9_.]*)'?(?:;.*)?$`)

// refusedMemory is the same of memory, the exceptions of libraries included.
var refusedMemory = regexp.MustCompile(`^(?:\w+\.)*\w*MemoryError(?:: |$)`)

func lastLine(stderr string) string {
	text := strings.TrimRight(stderr, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// MissingModule returns the module for want of which a program ended, or "".
func MissingModule(stderr string) string {
	match := missing.FindStringSubmatch(lastLine(stderr))
	if match == nil || len(match[1]) > 200 {
		return ""
	}
	return match[1]
}

const lessMemory = "Work on the data in pieces, and keep less of it at once."

// hintOn says what to do about how a run has ended, in a sentence for a model; "" when there is nothing to say.
func (o *Executions) hintOn(r pool.Result, timeout time.Duration) string {
	switch r.Status {
	case pool.StatusError:
		if module := MissingModule(r.Stderr); module != "" && o.Hint != nil {
			return o.Hint(module)
		}
		if refusedMemory.MatchString(lastLine(r.Stderr)) {
			return fmt.Sprintf("The code asked for more memory than it may have: %s, with what it starts. %s", SizeText(o.Memory), lessMemory)
		}
	case pool.StatusTimeout:
		more := ""
		if timeout < o.MaxTimeout {
			more = fmt.Sprintf(", or set timeout to more seconds, up to %s", Seconds(o.MaxTimeout.Seconds()))
		}
		return fmt.Sprintf("The code was ended after its timeout of %s s, and its output until then is here. Give it less to do%s.", Seconds(timeout.Seconds()), more)
	case pool.StatusMemoryLimit:
		return fmt.Sprintf("The code and what it started held more than %s together and were ended. %s", SizeText(o.Memory), lessMemory)
	case pool.StatusOutputLimit:
		return fmt.Sprintf("The code was ended since it had printed more than %s. Print a summary, or the part that matters.", SizeText(o.OutputKill))
	case pool.StatusOK, pool.StatusKilled:
	}
	return ""
}

// Hint says how a module that is missing can be had, in a sentence for a model.
func (i *Installs) Hint(module string) string {
	return i.hintFor(module, "to later executions", "run the code again")
}

// KernelHint is hint for a kernel, whose process keeps the packages that it has started with. current is the generation of
// those that a fresh process has.
func (i *Installs) KernelHint(current func() int) func(module string, generation int) string {
	return func(module string, generation int) string {
		hint := i.hintFor(module, "to kernels that are started or restarted after it", "restart this kernel and run the code again")
		if hint != "" && generation != current() {
			return fmt.Sprintf("Packages have been installed since the process of this kernel started, which does not see them: restart the kernel, then run the code again. If %s is still missing, the hint will say what to do.", module)
		}
		return hint
	}
}

// hintFor names who can import what is installed now, and what to do then.
func (i *Installs) hintFor(module, who, then string) string {
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
	if i.Pool == nil {
		return fmt.Sprintf("The module %s is not installed, and this server does not install packages: do without it.", module)
	}
	if !known {
		return fmt.Sprintf("The module %s is not installed. If a package provides it, pip_install with the package's name makes it available %s.", module, who)
	}
	req, err := policy.ParseRequirement(distribution, "")
	if err != nil {
		return ""
	}
	if decision := i.Policy.Check(req); !decision.Allowed {
		return fmt.Sprintf("The module %s comes with the package %s, which may not be installed here: %s", module, distribution, decision.Message)
	}
	return fmt.Sprintf("The module %s comes with the package %s: call pip_install with {\"package\": %q}, then %s.", module, distribution, distribution, then)
}
