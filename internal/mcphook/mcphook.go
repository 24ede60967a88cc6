// Package mcphook lets the test build of tests/conformance serve more over MCP than the product does: what the official
// conformance suite asks for. In the product its variable is nil.
package mcphook

import (
	"context"

	"github.com/mark3labs/mcp-go/server"
)

// Extend adds to a tool server before it serves. A tool calls sent for each notification that it has handed to the server.
var Extend func(tools *server.MCPServer, sent func(ctx context.Context))
