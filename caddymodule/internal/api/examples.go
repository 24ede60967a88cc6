package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// example is a value with the words above it. Examples are shown in the order of their names, and the first request is
// what "Try it out" starts with. Those of /execute have a request and the answer to it under one name; a test runs them.
type example struct {
	name, summary string
	value         any
}

var requestExamples = map[string][]example{
	"execute_python": {
		{"hello", "Hello, World!", operation.ExecuteInput{Code: `print("Hello, World!")`}},
		{"input", "Text on standard input", operation.ExecuteInput{Code: "name = input()\nprint(f\"Hello, {name}!\")", Stdin: "Ada"}},
		{"raise", "An exception", operation.ExecuteInput{Code: `raise ValueError("no such city")`}},
		{"sleep", "A program that takes too long", operation.ExecuteInput{Code: "import time\nprint(\"working\", flush=True)\ntime.sleep(60)", Timeout: new(0.5)}},
	},
	"pip_install": {
		{"latest", "The latest version", operation.InstallInput{Package: "humanize"}},
		{"range", "A range of versions", operation.InstallInput{Package: "humanize", Version: new(">=4,<5")}},
		{"with-extra", "A package with an extra", operation.InstallInput{Package: "requests[socks]"}},
	},
}

var answerExamples = map[string][]example{
	"execute_python": {
		{"hello", "Hello, World!", operation.ExecuteOutput{Stdout: "Hello, World!\n", ExecutionTime: 0.002103, Success: true, Status: "ok", Usage: exampleUsage}},
		{"input", "Text on standard input", operation.ExecuteOutput{Stdout: "Hello, Ada!\n", ExecutionTime: 0.002214, Success: true, Status: "ok", Usage: exampleUsage}},
		{"raise", "An exception", operation.ExecuteOutput{Stderr: "Traceback (most recent call last):\n  File \"main.py\", line 1, in <module>\n    raise ValueError(\"no such city\")\n" +
			"ValueError: no such city\n", ExitCode: 1, ExecutionTime: 0.002951, Status: "error", Usage: exampleUsage}},
		{"sleep", "A program that takes too long", operation.ExecuteOutput{Stdout: "working\n", ExitCode: 124, ExecutionTime: 0.500871, Status: "timeout", Usage: exampleUsage,
			Hint: "The code was ended after its timeout of 0.5 s, and its output until then is here. Give it less to do, or set timeout to more seconds, up to 120."}},
	},
	"pip_install": {
		{"installed", "It is there now", operation.InstallOutput{
			Success: true, Status: "installed", Message: "Installed humanize 4.12.3. The next execution can import it.", InstalledVersion: new("4.12.3"),
			InstallationTime: 1.304518, Packages: []operation.PackageVersion{{Name: "humanize", Version: "4.12.3"}}}},
		{"not_found", "The index has no such package", operation.InstallOutput{
			Status:  "not_found",
			Message: `The index has no package named "humanise-numbers". Check the spelling: the name to import and the name to install can differ.`, InstallationTime: 0.218734}},
		{"refused", "A rule forbids it", operation.InstallOutput{
			Status: "blocked", Message: `"json" is part of Python's standard library: import it, there is nothing to install.`, InstallationTime: 0.000042}},
	},
	"list_packages": {
		{"packages", "Two packages", operation.PackageList{Generation: 3, Packages: []operation.PackageInfo{
			{Name: "humanize", Version: "4.12.3", Source: "installed", Generation: 3}, {Name: "pip", Version: "25.0.1", Source: "interpreter"}}}},
	},
	"health": {
		{"ready", "Ready", operation.HealthOutput{
			Status: "ok", Version: "v1.0.0", Python: operation.HealthPython{Version: "3.12.4", Executable: "/usr/bin/python3.12"}, Preloaded: []string{"json", "math"},
			Workers: map[string]int{"booting": 0, "forking": 0, "idle": 4, "leased": 1, "draining": 0}, Templates: operation.HealthCount{Ready: 2, Target: 2}, Isolation: "strict",
			Guarantees: []operation.Guarantee{{Name: "reads only what Python needs", Layers: []string{"namespaces", "Landlock"}}},
			Limits: operation.HealthLimits{ExecuteTimeout: 30, ExecuteTimeoutMax: 120, MemoryBytes: 512 << 20, Processes: 64, OutputCharacters: 10000,
				OutputKillBytes: 64 << 20, ScratchBytes: 256 << 20, OpenFiles: 256, RequestBodyBytes: 10 << 20, CodeBytes: operation.MaxCodeBytes},
			Uptime: 86400.25}},
	},
}

var exampleUsage = operation.ExecuteUsage{CPUTime: 0.001904, PeakMemoryBytes: 13225984, QueueTime: 0.000004}

// answerWords says when 200 is answered.
var answerWords = map[string]string{
	"execute_python": "The program ran; `status` says how it ended.",
	"pip_install":    "The request was understood; `status` says how the install ended.",
	"list_packages":  "What programs can import.",
	"health":         "Executions are taken.",
}

func addExamples(op *huma.Operation) {
	op.Responses["200"].Description = answerWords[op.OperationID]
	if op.RequestBody != nil {
		setExamples(op.RequestBody.Content["application/json"], requestExamples[op.OperationID])
	}
	setExamples(op.Responses["200"].Content["application/json"], answerExamples[op.OperationID])
}

func setExamples(media *huma.MediaType, examples []example) {
	media.Examples = map[string]*huma.Example{}
	for _, one := range examples {
		media.Examples[one.name] = &huma.Example{Summary: one.summary, Value: one.value}
	}
}
