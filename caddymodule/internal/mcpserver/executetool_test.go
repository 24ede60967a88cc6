package mcpserver

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

func TestMCPClientsListAndRun(t *testing.T) {
	for _, transport := range []string{"sse", "http"} {
		t.Run(transport, func(t *testing.T) {
			b := newBench(t, &fakeExecutor{}, Options{Python: "3.12.1", Preload: []string{"json"}})
			c := b.dial(transport)
			tools, err := c.ListTools(t.Context(), mcp.ListToolsRequest{})
			if err != nil || len(tools.Tools) != 1 {
				t.Fatalf("tools: %+v, %v", tools, err)
			}
			tool := tools.Tools[0]
			timeout, _ := tool.InputSchema.Properties["timeout"].(map[string]any)
			if tool.Name != "execute_python" || tool.Title == "" || !slices.Equal(tool.InputSchema.Required, []string{"code"}) ||
				timeout["default"] != 30.0 || timeout["maximum"] != 120.0 || timeout["exclusiveMinimum"] != 0.0 || timeout["title"] == "" {
				t.Errorf("tool: %+v", tool)
			}
			result, err := c.CallTool(t.Context(), callArgs(map[string]any{"code": "print('<é>')", "timeout": 1.5, "stdin": "x"}))
			if err != nil || result.IsError || len(result.Content) != 1 {
				t.Fatalf("result: %+v, %v", result, err)
			}
			text, _ := result.Content[0].(mcp.TextContent)
			var said operation.ExecuteOutput
			if err := json.Unmarshal([]byte(text.Text), &said); err != nil || said.Stdout != "print('<é>')" {
				t.Errorf("text %q: %v", text.Text, err)
			}
			structured, _ := json.Marshal(result.StructuredContent)
			var meant operation.ExecuteOutput
			if err := json.Unmarshal(structured, &meant); err != nil || meant != said {
				t.Errorf("structured %s is not the text %s", structured, text.Text)
			}
			if b.ex.last.Timeout == nil || *b.ex.last.Timeout != 1.5 || b.ex.last.Stdin != "x" {
				t.Errorf("arguments arrived as %+v", b.ex.last)
			}
			// A program that fails is a normal result: mcpo turns isError into a 500 and drops the rest.
			if result, err = c.CallTool(t.Context(), callArgs(map[string]any{"code": "raise"})); err != nil || result.IsError {
				t.Errorf("failing program: %+v, %v", result, err)
			}
		})
	}
}

func TestMCPInstructionsSayWhatIsThere(t *testing.T) {
	said := instructions(Options{Python: "3.12.1", Preload: []string{"json", "numpy"}, DefaultTimeout: 30 * time.Second, MaxTimeout: 120 * time.Second})
	for _, want := range []string{"3.12.1", "json, numpy", "no network", "not persist", "120 seconds"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in %q", want, said)
		}
	}
}

func TestMCPRefusedArgumentsAreToolErrors(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	for args, want := range map[string]string{
		`{}`:                          "code is missing",
		`{"code":null}`:               "code is missing",
		`{"code":7}`:                  "must be a string of Python source, not a number",
		`[1]`:                         "arguments must be an object",
		`{"code":"x","timeout":0}`:    "timeout is 0: choose a number of seconds more than 0 and up to 120",
		`{"code":"x","timeout":-1}`:   "timeout is -1",
		`{"code":"x","timeout":121}`:  "timeout is 121",
		`{"code":"x","timeout":"9s"}`: "number of seconds such as 10, not a string that holds no number",
		`{"code":"x","timeout":""}`:   "not a string that holds no number",
		`{"code":"x","timeout":"0"}`:  "timeout is 0",
		`{"code":["x"]}`:              "not an array: join its lines into one string",
		`{"code":"x","timeout":true}`: "not true or false",
		`{"code":"print('\ud800')"}`:  "half of a surrogate pair",
		`{"code":"x","code":"y"}`:     "occurs twice",
		`{"code":"x","stdin":[]}`:     "stdin must be a string, not an array",
		`{"code":"` + strings.Repeat("x", operation.MaxCodeBytes+1) + `"}`: "at most 1048576",
	} {
		status, body, _ := b.post("/mcp", "", callJSON(1, args))
		if status != 200 || !strings.Contains(body, `"isError":true`) || !strings.Contains(body, want) {
			t.Errorf("%.60s: %d %.300s", args, status, body)
		}
	}
	for _, args := range []string{`{"code":"x","timeout":null,"stdin":null}`, `{"code":"","other":1}`, `{"code":"x","timeout":0.1}`,
		`{"code":"x","timeout":" 9 "}`} {
		if status, body, _ := b.post("/mcp", "", callJSON(1, args)); status != 200 || strings.Contains(body, `"isError":true`) {
			t.Errorf("%s: %d %s", args, status, body)
		}
	}
	if started, _ := b.ex.counts(); started != 4 {
		t.Errorf("%d calls reached the executor, not 4", started)
	}
}

func TestMCPPanicIsAToolErrorThatTellsNothing(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{})
	if _, body, _ := b.post("/mcp", "", callJSON(1, `{"code":"panic"}`)); !strings.Contains(body, `"isError":true`) || strings.Contains(body, "boom") {
		t.Error(body)
	}
}

func TestMCPConcurrencyIsBounded(t *testing.T) {
	b := newBench(t, &fakeExecutor{}, Options{MaxConcurrent: 1})
	id := b.initialize()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.post("/mcp", id, callJSON(1, `{"code":"block"}`))
	}()
	b.running(1)
	if _, body, _ := b.post("/mcp", "", callJSON(2, `{"code":"x"}`)); !strings.Contains(body, `"isError":true`) || !strings.Contains(body, "Try again") {
		t.Error(body)
	}
	b.post("/mcp", id, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
	<-done
}

// Every field of an output type is in its schema, and is required there unless it is omitempty.
func TestMCPOutputSchemasAreTheHTTPResponses(t *testing.T) {
	t.Parallel()
	type object struct {
		Properties map[string]json.RawMessage
		Required   []string
		Items      json.RawMessage
	}
	parse := func(raw []byte) (o object) {
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	check := func(of reflect.Type, schema object) {
		if len(schema.Properties) != of.NumField() {
			t.Errorf("%s has %d fields, the schema %d properties", of, of.NumField(), len(schema.Properties))
		}
		for i := range of.NumField() {
			name, options, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if _, ok := schema.Properties[name]; !ok {
				t.Errorf("%s.%s is not in the schema", of, name)
			}
			if required := slices.Contains(schema.Required, name); required == (options == "omitempty") {
				t.Errorf("%s.%s: required is %v", of, name, required)
			}
		}
	}
	execute, install := parse([]byte(executeOutputSchema)), parse([]byte(installOutputSchema))
	check(reflect.TypeFor[operation.ExecuteOutput](), execute)
	check(reflect.TypeFor[operation.ExecuteUsage](), parse(execute.Properties["usage"]))
	check(reflect.TypeFor[operation.InstallOutput](), install)
	check(reflect.TypeFor[operation.PackageVersion](), parse(parse(install.Properties["packages"]).Items))
}
