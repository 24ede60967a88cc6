// Package markdown extracts programs from the Markdown that models put around them. It reads fences only, line by line: a parser of all
// of Markdown would take Python for lists and HTML. The text is untrusted, so the time that it takes is linear in the text's size.
package markdown

import (
	"slices"
	"strings"
)

// languages are the words behind an opening fence that stand for Python; "" is a fence without one.
var languages = []string{"", "python", "python3", "py", "py3", "ipython", "ipython3", "tool_code"}

// block is what stands between two fences.
type block struct {
	open, end int    // the fences' lines, from 0; end is the number of lines when there is no closing fence
	language  string // in lower case
	indent    int    // of the opening fence
	marks     string
}

// Programs returns the programs that a text may hold between its fences, the likeliest first, two at most; none when the text has no
// fence with Python. Empty lines replace the lines before a program, so that it keeps the line numbers of the text.
func Programs(text string) []string {
	if !strings.Contains(text, "```") && !strings.Contains(text, "~~~") && !strings.HasPrefix(strings.TrimSpace(text), "`") {
		return nil
	}
	if inline := withinLine(text); inline != "" {
		return []string{inline}
	}
	lines := strings.SplitAfter(text, "\n")
	blocks := fenced(lines)
	chosen := pythons(blocks)
	if len(chosen) == 0 {
		return nil
	}
	programs := []string{inside(lines, chosen)}
	// A program may itself hold fences, in a string: then the last fence is the one that ends it.
	if last := lastFence(lines, chosen[0]); last > chosen[0].end {
		outer := chosen[0]
		outer.end = last
		programs = append(programs, inside(lines, []block{outer}))
	}
	return slices.DeleteFunc(programs, func(p string) bool { return strings.TrimSpace(p) == "" })
}

// Certain reports whether a text cannot be Python since it begins with a backtick, which is no token of Python's.
func Certain(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "`") }

// fenced lists the blocks of a text.
func fenced(lines []string) (blocks []block) {
	for n := 0; n < len(lines); n++ {
		opened, ok := opening(lines[n])
		if !ok {
			continue
		}
		opened.open, opened.end = n, len(lines)
		for n++; n < len(lines); n++ {
			if closes(lines[n], opened.marks) {
				opened.end = n
				break
			}
		}
		blocks = append(blocks, opened)
	}
	return blocks
}

// opening reads a line that may open a block: three or more backticks or tildes, and perhaps a language.
func opening(line string) (block, bool) {
	trimmed := strings.TrimLeft(line, " \t")
	marks := trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "`"))]
	if marks == "" {
		marks = trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "~"))]
	}
	info := strings.TrimSpace(trimmed[len(marks):])
	if len(marks) < 3 || strings.Contains(info, "`") {
		return block{}, false
	}
	word := ""
	if fields := strings.FieldsFunc(info, func(r rune) bool { return strings.ContainsRune(" \t{},:", r) }); len(fields) > 0 {
		word = strings.ToLower(strings.TrimPrefix(fields[0], "."))
	}
	return block{language: word, indent: len(line) - len(trimmed), marks: marks}, true
}

// closes reports whether a line closes a block that marks have opened.
func closes(line, marks string) bool {
	line = strings.TrimSpace(line)
	return len(line) >= len(marks) && strings.Trim(line, marks[:1]) == ""
}

// pythons returns the blocks whose language is Python, or else the first block without a language.
func pythons(blocks []block) (chosen []block) {
	for _, b := range blocks {
		if b.language != "" && slices.Contains(languages, b.language) {
			chosen = append(chosen, b)
		}
	}
	if len(chosen) > 0 {
		return chosen
	}
	for _, b := range blocks {
		if b.language == "" {
			return []block{b}
		}
	}
	return nil
}

// lastFence returns the last line that could close a block, or -1.
func lastFence(lines []string, b block) int {
	for n := len(lines) - 1; n > b.open; n-- {
		if closes(lines[n], b.marks) {
			return n
		}
	}
	return -1
}

// inside returns the lines of blocks, with empty lines in the place of those before and between them.
func inside(lines []string, blocks []block) string {
	var b strings.Builder
	next := 0
	for _, one := range blocks {
		for ; next <= one.open; next++ {
			b.WriteByte('\n')
		}
		for ; next < one.end; next++ {
			line := lines[next]
			for cut := 0; cut < one.indent && line != "" && (line[0] == ' ' || line[0] == '\t'); cut++ {
				line = line[1:]
			}
			b.WriteString(line)
		}
	}
	return b.String()
}

// withinLine returns the program of a text that is one line between backticks; "" for any other text.
func withinLine(text string) string {
	text = strings.TrimSpace(text)
	inner := strings.Trim(text, "`")
	left := len(text) - len(strings.TrimLeft(text, "`"))
	right := len(text) - len(strings.TrimRight(text, "`"))
	if left == 0 || left != right || left == len(text) || strings.ContainsAny(inner, "`\n") {
		return ""
	}
	word, rest, found := strings.Cut(inner, " ")
	if found && word != "" && slices.Contains(languages, strings.ToLower(word)) {
		inner = rest
	}
	return strings.TrimSpace(inner)
}
