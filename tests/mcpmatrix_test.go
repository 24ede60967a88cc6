package tests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenarioInfo is a column of the table.
type scenarioInfo struct{ name, means string }

// The scenarios are what clients do, the columns of a table whose rows are mcpClients. Each cell is run, but for those that
// absentCells and onlyCells name. The programs of the clients say in their own language what each is.
var (
	// Each client does these when it comes to them.
	aloneScenarios = []scenarioInfo{
		{"list", "the tools, and what the server says of itself"},
		{"call", "both tools"},
		{"odd", "output with U+0085, U+2028, NUL, a lone surrogate and a stray byte"},
		{"5 MB", "output of 5 MB"},
		{"picture", "a program that prints an image, raw and in base64"},
		{"image", "a result with an image content block, of a tool of the fixtures"},
		{"failure", "a program that raises, and one that takes too long"},
		{"refused", "arguments that are refused, and a tool that is not there"},
		{"together", "four calls at once in one session"},
		{"progress", "notes of a call that takes a while"},
		{"load", "500 calls, 20 at once, without an error"},
	}
	// All clients do these in step.
	stepScenarios = []scenarioInfo{
		{"abandon", "the caller no longer wants an answer, which the server does not hear: the run ends at its timeout"},
		{"cancel", "a call is cancelled, its worker is free within a second, and the session goes on"},
		{"reload", "the server is reloaded in the middle of a call: its result comes, and the next call works"},
		{"leave", "the client goes away in the middle of a call, and the worker is free within a second"},
	}
	// And these in a test of their own.
	longScenarios = []scenarioInfo{
		{"70 s", "a call of 70 s by a client that hears of its progress"},
		{"70 s, silent", "one by a client that does not ask for progress"},
	}
)

// mcpClient is a row of the table: a client and a transport that it has.
type mcpClient struct {
	name, transport string
	program         string
	args            []string
}

var mcpClients = []mcpClient{
	{"TypeScript SDK 1", "sse", "sdk.mjs", []string{"v1", "sse"}},
	{"TypeScript SDK 1", "http", "sdk.mjs", []string{"v1", "http"}},
	{"TypeScript SDK 2", "sse", "sdk.mjs", []string{"v2", "sse"}},
	{"TypeScript SDK 2", "http", "sdk.mjs", []string{"v2", "http"}},
	{"TypeScript SDK 2", "auto, sse", "sdk.mjs", []string{"auto", "sse"}},
	{"TypeScript SDK 2", "auto, http", "sdk.mjs", []string{"auto", "http"}},
	{"mcp-remote", "sse", "sdk.mjs", []string{"remote", "sse"}},
	{"mcp-remote", "http", "sdk.mjs", []string{"remote", "http"}},
	{"mcp-remote", "auto, http", "sdk.mjs", []string{"remote-auto", "http"}},
	{"Python SDK 1", "sse", "sdk1.py", []string{"sse"}},
	{"Python SDK 1", "http", "sdk1.py", []string{"http"}},
	{"Python SDK 2", "sse", "sdk2.py", []string{"sse"}}, // auto is its default, and falls back
	{"Python SDK 2", "http", "sdk2.py", []string{"http"}},
	{"Python SDK 2", "auto, http", "sdk2.py", []string{"auto"}},
	{"mcpo", "sse", "mcpo_http.py", []string{"sse"}},
	{"mcpo", "http", "mcpo_http.py", []string{"streamable-http"}},
	{"Inspector", "sse", "inspector_cli.py", []string{"sse"}},
	{"Inspector", "http", "inspector_cli.py", []string{"http"}},
	{"Inspector", "modern", "inspector_cli.py", []string{"modern"}},
}

// absentCells says why a client, or one on one transport, lacks a scenario.
var absentCells = map[string]map[string]string{
	"mcpo": {
		"progress": "it asks for none",
		"cancel":   "it does not cancel: what happens then is the scenario abandon",
		"70 s":     "it asks for no progress",
	},
	"Inspector": {
		"together":     "each call of its command line is a session of its own; the calls of its load mode are together",
		"progress":     "its command line asks for none",
		"cancel":       "its command line cancels in one way, by being ended: that is the scenario leave",
		"70 s":         "its command line gives a call up after a minute, and has no option to wait longer",
		"70 s, silent": "as 70 s",
	},
	// In that revision a client closes the request. An id alone, without a session, could cancel a stranger's call.
	"mcp-remote, auto, http": {"cancel": "it posts a notification that names a request, which has no addressee there: see abandon"},
}

// onlyCells are the scenarios that few have, and why the others do not.
var onlyCells = map[string]struct {
	clients []string
	why     string
}{
	"load":    {[]string{"Inspector"}, "no other client has a load mode"},
	"abandon": {[]string{"mcpo", "mcp-remote, auto, http"}, "every other client tells the server, or is gone itself"},
}

// lacks says why a client lacks a scenario, and nothing if it has it.
func (m mcpClient) lacks(scenario string) string {
	if only, found := onlyCells[scenario]; found && !slices.Contains(only.clients, m.name) && !slices.Contains(only.clients, m.String()) {
		return only.why
	}
	return cmp.Or(absentCells[m.name][scenario], absentCells[m.String()][scenario])
}

func (m mcpClient) String() string { return m.name + ", " + m.transport }

// cellTimes is how long each cell took.
type cellTimes map[mcpCell]time.Duration

type mcpCell struct{ client, scenario string }

// logTable shows the table with the seconds that each cell took.
func (times cellTimes) logTable(t testing.TB, columns ...scenarioInfo) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s", "seconds")
	for _, s := range columns {
		fmt.Fprintf(&b, " %*s", max(5, len(s.name)), s.name)
	}
	for _, client := range mcpClients {
		fmt.Fprintf(&b, "\n%-28s", client)
		for _, s := range columns {
			cell := ""
			if took, ran := times[mcpCell{client.String(), s.name}]; ran {
				cell = fmt.Sprintf("%.2f", took.Seconds())
			} else if client.lacks(s.name) != "" {
				cell = "-"
			}
			fmt.Fprintf(&b, " %*s", max(5, len(s.name)), cell)
		}
	}
	t.Log(b.String())
}
