package mcpserver

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// installOutputSchema describes operation.InstallOutput to MCP clients; a test compares the two. It does not forbid further
// properties, so that fields can be added later.
const installOutputSchema = `{
  "type": "object",
  "properties": {
    "success": {"type": "boolean", "description": "True when the package is there now."},
    "status": {"type": "string", "enum": ["installed", "already_installed", "blocked", "not_found", "too_large", "conflict", "no_wheel", "timeout", "failed"], "description": "How the install ended. Unless it is installed, nothing has changed."},
    "message": {"type": "string", "description": "What happened, and what to do about it."},
    "installed_version": {"type": ["string", "null"], "description": "The version that is there now, when success is true."},
    "installation_time": {"type": "number", "description": "Seconds it took, the wait for other installs included."},
    "packages": {
      "type": "array",
      "description": "What was installed, dependencies included.",
      "items": {
        "type": "object",
        "properties": {
          "name": {"type": "string", "description": "Canonical name."},
          "version": {"type": "string", "description": "Such as 2.31.0."}
        },
        "required": ["name", "version"]
      }
    }
  },
  "required": ["success", "status", "message", "installed_version", "installation_time"]
}`

// installTool is the tool pip_install.
type installTool struct {
	*calls
	in operation.Packages
}

// definition returns the tool as tools/list shows it.
func (t *installTool) definition() mcp.Tool {
	return mcp.NewTool("pip_install",
		mcp.WithToolTitle("Install a Python package"),
		mcp.WithDescription("Install a Python package from the server's package index, with what it needs, so that execute_python can import it. "+
			"It stays for every later call of everyone who uses this server. Installing what is there already costs nothing. "+
			"A package that cannot be installed is a normal result: status and message say why, and what to do."),
		mcp.WithString("package", mcp.Required(), mcp.Title("Package"), mcp.MaxLength(200),
			mcp.Description("The package's name on the index, with extras if need be, such as requests or requests[socks]. It can differ from the name to import: Pillow provides PIL.")),
		mcp.WithString("version", mcp.Title("Version"), mcp.DefaultString("latest"), mcp.MaxLength(200),
			mcp.Description("A version such as 2.31.0, a specifier such as >=2,<3, or latest. Default latest.")),
		mcp.WithRawOutputSchema(json.RawMessage(installOutputSchema)),
		mcp.WithReadOnlyHintAnnotation(false),
		mcp.WithDestructiveHintAnnotation(false), // what programs could import stays, perhaps in another version
		mcp.WithIdempotentHintAnnotation(true),
		mcp.WithOpenWorldHintAnnotation(true))
}

// call handles one call of pip_install.
func (t *installTool) call(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return t.run(ctx, func() (func(context.Context) (any, error), string) {
		in, fault := t.arguments(req.Params.RawArguments)
		return func(ctx context.Context) (any, error) {
			notes := newProgressNotes(ctx, req)
			defer notes.close()
			return t.in.Install(ctx, in, func(p install.Progress) { notes.tell(installNote(p)) })
		}, fault
	})
}

// arguments checks the types of a call's arguments; fault is a sentence for the model. The operation checks the values.
func (t *installTool) arguments(raw json.RawMessage) (in operation.InstallInput, fault string) {
	args, fault := decodeArguments(raw, `{"package": "requests"}`)
	if fault != "" {
		return in, fault
	}
	switch name := args["package"].(type) {
	case nil:
		return in, "The argument package is missing: pass the name of the package to install as a string."
	case string:
		in.Package = name
	default:
		return in, "The argument package must be a string with a package's name, not " + operation.SentKind("package", name) + "."
	}
	switch version := args["version"].(type) {
	case nil:
	case string:
		in.Version = &version
	default:
		return in, `The argument version must be a string such as "2.31.0", not ` + operation.SentKind("version", version) + "."
	}
	return in, ""
}

// phaseShare is the progress at which each phase of an install begins, from 0 to 1.
var phaseShare = map[install.Phase]float64{
	install.PhaseQueued: 0.01, install.PhaseResolving: 0.1, install.PhaseDownloading: 0.25, install.PhaseUnpacking: 0.8, install.PhaseWarming: 0.9,
}

// installNote turns the state of an install into a progress note.
func installNote(p install.Progress) note {
	done := phaseShare[p.Phase]
	if p.Phase == install.PhaseDownloading && p.Total > 0 {
		done += (phaseShare[install.PhaseUnpacking] - done) * float64(p.Done) / float64(p.Total)
	}
	return note{string(p.Phase), done, progressWords(p)}
}

func progressWords(p install.Progress) string {
	bytes := func(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
	switch {
	case p.Phase == install.PhaseQueued:
		return "queued behind other installs"
	case p.Phase == install.PhaseWarming:
		return "warming workers with the new packages"
	case p.Total > 0:
		return fmt.Sprintf("%s, %s of %s", p.Phase, bytes(p.Done), bytes(p.Total))
	case p.Done > 0:
		return fmt.Sprintf("%s, %s so far", p.Phase, bytes(p.Done))
	}
	return string(p.Phase)
}
