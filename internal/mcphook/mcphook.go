// Package mcphook lets tests/conformance, a build for tests, add to the MCP server the tools, resources and prompts that the
// official conformance suite calls. In the product its variable is nil.
package mcphook

import (
	"context"

	"github.com/mark3labs/mcp-go/server"
)

// Extend, when not nil, adds to an MCP server before that serves. A tool must call sent, with the context of its call, for each
// notification that it has handed to the server, so that the notification is counted. Extend must be set before Caddy loads a
// config.
var Extend func(tools *server.MCPServer, sent func(ctx context.Context))
