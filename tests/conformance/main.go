// Command conformance is the product with more to serve over MCP: the tools, resources and prompts that the scenarios of the
// official conformance suite call by name. All between them and the client is the product's own.
package main

import (
	"context"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/mcphook"
)

func main() {
	mcphook.Extend = extend
	caddycmd.Main()
}

// fixtures adds to one tool server.
type fixtures struct {
	*server.MCPServer
	sent func(context.Context)
}

func extend(tools *server.MCPServer, sent func(context.Context)) {
	for _, option := range []server.ServerOption{
		server.WithToolCapabilities(true),
		server.WithResourceCapabilities(true, true),
		server.WithPromptCapabilities(true),
		server.WithCompletions(),
		server.WithLogging(),
		server.WithElicitation(),
	} {
		option(tools)
	}
	tools.EnableSampling()
	f := &fixtures{tools, sent}
	f.addContents()
	f.addRequests()
	f.addNotifications()
	f.addInputs()
	f.addResources()
	f.addPrompts()
}

// tool adds one without arguments, or with string arguments that must be given.
func (f *fixtures) tool(name string, call server.ToolHandlerFunc, arguments ...string) {
	options := []mcp.ToolOption{mcp.WithDescription("For the scenario of this name.")}
	for _, argument := range arguments {
		options = append(options, mcp.WithString(argument, mcp.Required()))
	}
	f.AddTool(mcp.NewTool(name, options...), call)
}

// fixed adds a tool that always answers the same.
func (f *fixtures) fixed(name string, contents ...mcp.Content) {
	f.tool(name, func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: contents}, nil
	})
}

func text(s string) mcp.TextContent { return mcp.TextContent{Type: "text", Text: s} }

// notify sends a notification to the client of the call.
func (f *fixtures) notify(ctx context.Context, method mcp.MCPMethod, params map[string]any) error {
	if err := f.SendNotificationToClient(ctx, string(method), params); err != nil {
		return err
	}
	f.sent(ctx)
	return nil
}
