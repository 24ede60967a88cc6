// Package hint says in a sentence or two what a model can do about how its program has ended. The output of the program is untrusted:
// only a bounded part of its end is read, and a hint repeats nothing of it but what has the shape of a module's, a package's or a
// command's name.
package hint

import "strings"

// End is how a program has ended.
type End struct {
	// Code is the program.
	Code string
	// Stdout and Stderr are what it printed. A traceback is at the end of Stderr.
	Stdout, Stderr string
	// Failed says that it ended with an exit code other than 0.
	Failed bool
	// Kernel says that it was a cell of a kernel, whose files and names stay, and which reads no standard input.
	Kernel bool
	// Stdin says that the program was given some standard input.
	Stdin bool
}

// Packages says how programs get modules and packages. Each method returns sentences for a model, or "" when it has nothing to say.
type Packages interface {
	// Module says how to get a module that is missing.
	Module(name string) string
	// Requirements says how to get packages that a program needs. names are words that were found in its output, and may be
	// anything.
	Requirements(names []string) string
	// Pip says what to do instead of running pip inside a program. names are as for Requirements; empty when the packages are not
	// known.
	Pip(names []string) string
}

// Limits are the limits that a hint can name.
type Limits struct {
	// Memory is the most that a program may hold, as text with a unit.
	Memory string
	// Processes is how many processes and threads it may have; 0 for unknown.
	Processes int
}

const (
	// failedTail and quietTail bound how much of the end of each stream is read, in bytes: of a program that has failed, and of one
	// that has not. A chain of exceptions of an HTTP library is about as long as failedTail.
	failedTail = 12 << 10
	quietTail  = 4 << 10
	// maxCode is how much of a program is read, in bytes.
	maxCode = 64 << 10
)

// silence is a Packages that never has anything to say.
type silence struct{}

func (silence) Module(string) string         { return "" }
func (silence) Requirements([]string) string { return "" }
func (silence) Pip([]string) string          { return "" }

// Unfenced is the hint when the contents of Markdown fences were run instead of the code as it was sent.
const Unfenced = "The code is no Python as it was sent, so what its Markdown fences hold was run and what stands around them was left out: send plain code, without fences."

// LessMemory is what to do about too little memory.
const LessMemory = "Work on the data in pieces, and keep less of it at once."

// On returns the hint for a program that ended by itself; "" when there is nothing to say.
func On(e End, packages Packages, limits Limits) string {
	if len(e.Stdout) == 0 && len(e.Stderr) == 0 {
		return ""
	}
	if packages == nil {
		packages = silence{}
	}
	most := quietTail
	if e.Failed {
		most = failedTail
	}
	out, errs := tail(e.Stdout, most), tail(e.Stderr, most)
	if triedPip(out, errs, e.Failed) {
		return packages.Pip(pipNames(e.Code, out, errs))
	}
	if !e.Failed {
		return onQuietNetwork(e, out, errs)
	}
	x := readException(errs)
	for _, look := range []func() string{
		func() string { return onImport(x, packages) },
		func() string { return onMemory(x, limits) },
		func() string { return onSyntax(e, x, packages) },
		func() string { return onNetwork(e, x) },
		func() string { return onFiles(e, x) },
		func() string { return onInput(e, x) },
		func() string { return onProcesses(x, limits) },
		func() string { return onChain(x, packages) },
	} {
		if words := look(); words != "" {
			return words
		}
	}
	return ""
}

// tail returns the last lines of a text, about most bytes of it.
func tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	if _, lines, found := strings.Cut(text, "\n"); found {
		return lines
	}
	return text
}

// head returns the first lines of a program, about maxCode bytes of it.
func head(code string) string {
	if len(code) <= maxCode {
		return code
	}
	return code[:strings.LastIndexByte(code[:maxCode], '\n')+1]
}

func containsAny(text string, words ...string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
