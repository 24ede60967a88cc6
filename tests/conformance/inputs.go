package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

func sampling(prompt string, tokens int) mcp.CreateMessageParams {
	return mcp.CreateMessageParams{
		Messages:  []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: text(prompt)}},
		MaxTokens: tokens,
	}
}

// question asks the user for one string.
func question(message, field string) mcp.ElicitationParams {
	return mcp.ElicitationParams{Message: message, RequestedSchema: form(object{field: object{"type": "string"}}, field)}
}

func confirmation() mcp.ElicitationParams {
	return mcp.ElicitationParams{Message: "Please confirm", RequestedSchema: form(object{"ok": object{"type": "boolean"}}, "ok")}
}

// states signs what clients hold for the server between two rounds.
type states []byte

func (s states) sign(state string) string {
	mac := hmac.New(sha256.New, s)
	mac.Write([]byte(state))
	return state + "." + hex.EncodeToString(mac.Sum(nil))
}

func (s states) read(signed string) (string, error) {
	state, _, _ := strings.Cut(signed, ".")
	if !hmac.Equal([]byte(signed), []byte(s.sign(state))) {
		return "", errors.New("the request state is not one of this server's")
	}
	return state, nil
}

// addInputs adds the tools and the prompt that answer with a question, as revision 2026-07-28 has it.
func (f *fixtures) addInputs() {
	key := make(states, 32)
	_, _ = rand.Read(key) // never fails
	ask := func(state string) *server.InputRequestBuilder {
		if state != "" {
			state = key.sign(state)
		}
		return server.NewInputRequestBuilder(state)
	}
	type result = mcp.CallToolResult
	// tool adds one that asks in round 1, and in later ones answers.
	tool := func(name string, state string, first func() *server.InputRequestBuilder, then func(in mcp.InputResponses, state string) *result) {
		f.tool("test_input_required_result_"+name, func(_ context.Context, req mcp.CallToolRequest) (*result, error) {
			if len(req.Params.InputResponses) == 0 {
				return first().ToolResult(), nil
			}
			held := ""
			if state != "" {
				var err error
				if held, err = key.read(req.Params.RequestState); err != nil {
					return nil, err
				}
			}
			if answer := then(req.Params.InputResponses, held); answer != nil {
				return answer, nil
			}
			return first().ToolResult(), nil
		})
	}
	done := func(ok bool, format string, args ...any) *result {
		if !ok {
			return nil
		}
		return mcp.NewToolResultText(fmt.Sprintf(format, args...))
	}

	tool("elicitation", "", func() *server.InputRequestBuilder {
		return ask("").Elicit("user_name", question("What is your name?", "name"))
	}, func(in mcp.InputResponses, _ string) *result {
		name, ok := answered(in, "user_name")["name"]
		return done(ok, "Hello, %v!", name)
	})
	tool("sampling", "", func() *server.InputRequestBuilder {
		return ask("").Sample("capital_question", sampling("What is the capital of France?", 100))
	}, func(in mcp.InputResponses, _ string) *result {
		said := server.SamplingResponse(in, "capital_question")
		return done(said != nil, "The client said %+v", said)
	})
	tool("list_roots", "", func() *server.InputRequestBuilder {
		return ask("").Roots("client_roots")
	}, func(in mcp.InputResponses, _ string) *result {
		roots := server.RootsResponse(in, "client_roots")
		return done(roots != nil, "The roots are %+v", roots)
	})
	tool("request_state", "1", func() *server.InputRequestBuilder {
		return ask("1").Elicit("confirm", confirmation())
	}, func(in mcp.InputResponses, _ string) *result {
		return done(answered(in, "confirm") != nil, "state-ok")
	})
	tool("tampered_state", "1", func() *server.InputRequestBuilder {
		return ask("1").Elicit("confirm", confirmation())
	}, func(in mcp.InputResponses, _ string) *result {
		return done(answered(in, "confirm") != nil, "done")
	})
	tool("multiple_inputs", "1", func() *server.InputRequestBuilder {
		return ask("1").Elicit("user_name", question("What is your name?", "name")).
			Sample("greeting", sampling("Generate a greeting", 50)).Roots("client_roots")
	}, func(in mcp.InputResponses, _ string) *result {
		return done(answered(in, "user_name") != nil && server.SamplingResponse(in, "greeting") != nil && server.RootsResponse(in, "client_roots") != nil, "done")
	})
	tool("multi_round", "1", func() *server.InputRequestBuilder {
		return ask("1").Elicit("step1", question("Step 1: What is your name?", "name"))
	}, func(in mcp.InputResponses, state string) *result {
		switch {
		case state == "1" && answered(in, "step1") != nil:
			return ask("2").Elicit("step2", question("Step 2: What is your favorite color?", "color")).ToolResult()
		case state == "2":
			return done(answered(in, "step2") != nil, "done")
		}
		return nil
	})
	f.tool("test_input_required_result_capabilities", func(ctx context.Context, _ mcp.CallToolRequest) (*result, error) {
		b := ask("")
		info := server.RequestProtocolInfoFromContext(ctx)
		if info == nil || info.ClientCapabilities == nil {
			return mcp.NewToolResultText("the client declares no capabilities"), nil
		}
		if info.ClientCapabilities.Sampling != nil {
			b.Sample("greeting", sampling("Generate a greeting", 50))
		}
		if info.ClientCapabilities.Elicitation != nil {
			b.Elicit("user_name", question("What is your name?", "name"))
		}
		return b.ToolResult(), nil
	})
	f.tool("test_streaming_elicitation", func(context.Context, mcp.CallToolRequest) (*result, error) {
		return ask("").Elicit("user_name", question("What is your name?", "name")).ToolResult(), nil
	})
	f.AddPrompt(mcp.NewPrompt("test_input_required_result_prompt", mcp.WithPromptDescription("Asks for its context.")),
		func(_ context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			given, ok := answered(req.Params.InputResponses, "user_context")["context"]
			if !ok {
				return ask("").Elicit("user_context", question("What context should the prompt use?", "context")).PromptResult(), nil
			}
			return &mcp.GetPromptResult{Messages: []mcp.PromptMessage{{Role: mcp.RoleUser, Content: text(fmt.Sprint("Context: ", given))}}}, nil
		})
}

// answered is what the user gave, or nil.
func answered(in mcp.InputResponses, id string) object {
	answer := server.ElicitationResponse(in, id)
	if answer == nil || answer.Action != mcp.ElicitationResponseActionAccept {
		return nil
	}
	content, _ := answer.Content.(object)
	return content
}
