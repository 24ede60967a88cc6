package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

type object = map[string]any

// form is the schema of what a user is asked for.
func form(properties object, required ...string) object {
	schema := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

func choice(values ...string) []any {
	var out []any
	for i := 0; i < len(values); i += 2 {
		out = append(out, object{"const": values[i], "title": values[i+1]})
	}
	return out
}

// addRequests adds the tools that ask the client for something, as revisions before 2026-07-28 do.
func (f *fixtures) addRequests() {
	f.tool("test_sampling", func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		//nolint:staticcheck // deprecated, and the suite has a scenario for it
		answer, err := f.RequestSampling(ctx, mcp.CreateMessageRequest{
			Request:             mcp.Request{Method: string(mcp.MethodSamplingCreateMessage)},
			CreateMessageParams: sampling(req.GetString("prompt", ""), 100)})
		if err != nil {
			return nil, err
		}
		said, _ := answer.Content.(mcp.TextContent)
		return mcp.NewToolResultText("LLM response: " + said.Text), nil
	}, "prompt")
	f.elicit("test_elicitation", form(object{
		"username": object{"type": "string", "description": "User's response"},
		"email":    object{"type": "string", "description": "User's email address"}}, "username", "email"), "message")
	f.elicit("test_elicitation_sep1034_defaults", form(object{
		"name":     object{"type": "string", "default": "John Doe"},
		"age":      object{"type": "integer", "default": 30},
		"score":    object{"type": "number", "default": 95.5},
		"status":   object{"type": "string", "enum": []string{"active", "inactive", "pending"}, "default": "active"},
		"verified": object{"type": "boolean", "default": true}}))
	f.elicit("test_elicitation_sep1330_enums", form(object{
		"untitledSingle": object{"type": "string", "enum": []string{"option1", "option2", "option3"}},
		"titledSingle":   object{"type": "string", "oneOf": choice("value1", "First Option", "value2", "Second Option")},
		"legacyEnum":     object{"type": "string", "enum": []string{"opt1", "opt2"}, "enumNames": []string{"Option One", "Option Two"}},
		"untitledMulti":  object{"type": "array", "items": object{"type": "string", "enum": []string{"option1", "option2", "option3"}}},
		"titledMulti":    object{"type": "array", "items": object{"anyOf": choice("value1", "First Choice", "value2", "Second Choice")}}}))
	f.tool("test_missing_capability", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if info := server.RequestProtocolInfoFromContext(ctx); info == nil || info.ClientCapabilities == nil || info.ClientCapabilities.Sampling == nil {
			return nil, mcp.MissingRequiredClientCapabilityError{Capability: "sampling"}
		}
		return mcp.NewToolResultText("done"), nil
	})
}

// elicit adds a tool that asks the user.
func (f *fixtures) elicit(name string, schema object, arguments ...string) {
	f.tool(name, func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		answer, err := f.RequestElicitation(ctx, mcp.ElicitationRequest{
			Request: mcp.Request{Method: string(mcp.MethodElicitationCreate)},
			Params:  mcp.ElicitationParams{Message: req.GetString("message", "Please answer"), RequestedSchema: schema}})
		if err != nil {
			return nil, err
		}
		return mcp.NewToolResultText(fmt.Sprintf("Elicitation completed: action=%s, content=%v", answer.Action, answer.Content)), nil
	}, arguments...)
}

// addNotifications adds the tools that tell the client something before they answer.
func (f *fixtures) addNotifications() {
	f.tool("test_tool_with_logging", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for _, said := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
			if err := f.notify(ctx, mcp.MethodNotificationMessage, object{"level": "info", "logger": "conformance", "data": said}); err != nil {
				return nil, err
			}
			time.Sleep(50 * time.Millisecond)
		}
		return mcp.NewToolResultText("logged"), nil
	})
	progress := func(ctx context.Context, req mcp.CallToolRequest, steps int, pause time.Duration) (*mcp.CallToolResult, error) {
		for i := range steps + 1 {
			if req.Params.Meta == nil || req.Params.Meta.ProgressToken == nil {
				break
			}
			if i > 0 {
				time.Sleep(pause)
			}
			if err := f.notify(ctx, mcp.MethodNotificationProgress, object{
				"progressToken": req.Params.Meta.ProgressToken, "progress": i * 100 / steps, "total": 100}); err != nil {
				return nil, err
			}
		}
		return mcp.NewToolResultText("done"), nil
	}
	f.tool("test_tool_with_progress", func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return progress(ctx, req, 2, 50*time.Millisecond)
	})
	// Not of the suite: the answer follows right behind twenty notifications.
	f.tool("burst", func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return progress(ctx, req, 19, 0)
	})
	f.tool("test_logging_tool", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultText("done"), f.SendLogMessageToClient(ctx, mcp.NewLoggingMessageNotification(mcp.LoggingLevelInfo, "conformance", "said"))
	})
	f.tool("test_trigger_tool_change", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		f.fixed("test_passing_tool", text("here"))
		f.DeleteTools("test_passing_tool")
		return mcp.NewToolResultText("changed"), nil
	})
	f.tool("test_trigger_prompt_change", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		f.prompt("test_passing_prompt", func(map[string]string) []mcp.Content { return nil })
		f.DeletePrompts("test_passing_prompt")
		return mcp.NewToolResultText("changed"), nil
	})
}
