package hint

import (
	"regexp"
	"strconv"
	"strings"
)

// failedLine matches the line of a traceback that says where a program or a cell has failed.
var failedLine = regexp.MustCompile(`File "(?:main\.py|[^"\n]*/main\.py|<cell \d+[^"\n]*>)", line (\d+)`)

// onSyntax returns the hint about a syntax error: what to write instead of what only notebooks, shells or web pages understand.
func onSyntax(e End, x exception, packages Packages) string {
	if x.is("NameError") {
		return onLanguageName(e, x)
	}
	if !x.is("SyntaxError", "IndentationError", "TabError") {
		return ""
	}
	code := head(e.Code)
	line := strings.TrimSpace(lineOf(code, x.block))
	switch assigned := afterAssignment(line); {
	case strings.HasPrefix(line, "!"), strings.HasPrefix(assigned, "!"):
		if pipLine(line) {
			return packages.Pip(pipNames(line, "", ""))
		}
		return `Lines that begin with ! are for notebooks: run the command with subprocess.run("…", shell=True), and packages are installed with pip_install.`
	case strings.HasPrefix(line, "%"), strings.HasPrefix(assigned, "%"):
		if pipLine(line) {
			return packages.Pip(pipNames(line, "", ""))
		}
		return "Lines that begin with % are magics of notebooks: leave them out, or do it in plain Python (for %%time, %run, %cd and %env: time.perf_counter, runpy, os.chdir and os.environ)."
	case strings.HasPrefix(line, "pip install "), strings.HasPrefix(line, "pip3 install "), strings.HasPrefix(line, "python -m pip "):
		return packages.Pip(pipNames(line, "", ""))
	case strings.HasPrefix(line, "?"), strings.HasSuffix(line, "?"):
		return "A question mark before or behind a name is for notebooks: use help(name)."
	case strings.Contains(x.message, "'await' outside function"), strings.Contains(x.message, "'async with' outside async function"),
		strings.Contains(x.message, "'async for' outside async function"):
		return "A script has no running event loop: put it into an async function main, and run that with asyncio.run(main())."
	case !strings.Contains(strings.TrimRight(code, "\n"), "\n") && strings.Contains(code, `\n`):
		return `The code is one line with \n as two characters in it: send real line breaks, escaped once in JSON.`
	case containsAny(line, "&lt;", "&gt;", "&amp;", "&quot;", "&#39;", "&#x27;"):
		return "The code holds HTML entities such as &lt; and &quot;: send the characters themselves."
	case strings.HasPrefix(line, ">>> "):
		return "The code has the prompts of an interactive session in it: leave out >>> and ..., and what was printed."
	case strings.HasPrefix(line, "```"), strings.HasPrefix(line, "~~~"):
		return "The code has Markdown fences in it, and what they hold is no Python either: send plain code."
	}
	return ""
}

// onLanguageName returns the hint about a first line that is only a language's name, left of a Markdown fence without its backticks.
func onLanguageName(e End, x exception) string {
	first, _, _ := strings.Cut(strings.TrimSpace(head(e.Code)), "\n")
	switch first = strings.TrimSpace(first); first {
	case "python", "python3", "py":
		if strings.HasPrefix(x.message, "name '"+first+"' is not defined") {
			return "The first line is the word " + first + ", the name of a language from a Markdown fence: leave it out."
		}
	}
	return ""
}

func pipLine(line string) bool {
	return regexpPip.MatchString(line)
}

var regexpPip = regexp.MustCompile(`\bpip3?(?:\.\d+)?\s+install\b`)

// lineOf returns the line of code that the last frame of a traceback names.
func lineOf(code, block string) string {
	found := failedLine.FindAllStringSubmatch(block, -1)
	if len(found) == 0 {
		return ""
	}
	number, err := strconv.Atoi(found[len(found)-1][1])
	if err != nil {
		return ""
	}
	for line := range strings.Lines(code) {
		if number--; number == 0 {
			return line
		}
	}
	return ""
}

// afterAssignment returns what follows "name =" in a line.
func afterAssignment(line string) string {
	name, value, found := strings.Cut(line, "=")
	if !found || strings.ContainsAny(name, "\"'(") {
		return ""
	}
	return strings.TrimSpace(value)
}
