package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// The OpenAPI document has two kinds of readers: tool servers such as Open WebUI, which show the descriptions to a
// model and call operations by their ids, and people, by way of /docs. The types say the most of it; here is the rest.

// Tags group operations for people.
const (
	tagExecution = "execution"
	tagPackages  = "packages"
	tagServer    = "server"
)

func newOpenAPI(schemas huma.Registry, in operation.Packages) *huma.OpenAPI {
	tags := []*huma.Tag{{Name: tagExecution, Description: "Run Python"}}
	if in != nil {
		tags = append(tags, &huma.Tag{Name: tagPackages, Description: "What programs can import"})
	}
	tags = append(tags, &huma.Tag{Name: tagServer, Description: "State and settings"})
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Python sandbox", Version: operation.Version(),
			Description: "Runs Python, each time in a fresh, isolated process.\n\n" +
				"What a program does is a result, not an error: a traceback, a timeout or a crash is answered with 200, a `status` " +
				"and everything that was printed. Errors are problem details (RFC 9457).",
			License: &huma.License{Name: "MIT", Identifier: "MIT"},
		},
		// Relative to where the document was fetched from, which is right behind any proxy and below any prefix.
		Servers:    []*huma.Server{{URL: ".", Description: "Where this document is"}},
		Tags:       tags,
		Components: &huma.Components{Schemas: schemas},
	}
}

// addOpenAPI adds to rs the document about all that was registered with api.
func addOpenAPI(rs edge.Routes, api huma.API, o Options) error {
	doc := api.OpenAPI()
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op != nil {
				describeErrors(op, path, o)
				addExamples(op)
			}
		}
	}
	for name, schema := range doc.Components.Schemas.Map() {
		schema.AdditionalProperties = nil // clients must not break when answers grow
		if name == "Problem" {
			schema.Description = "An error (RFC 9457)."
		}
	}
	content, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("writing the OpenAPI document: %w", err)
	}
	rs.Add(http.MethodGet, "/openapi.json", newDocument("application/openapi+json", content, false).serve)
	return nil
}

// errorWords says when a status is answered.
var errorWords = map[string]string{
	"400": "The body is not JSON.",
	"403": "A web page of another origin sent the request.",
	"405": "The path takes another method.",
	"408": "The body came too slowly.",
	"413": "The body is too large.",
	"422": "A field is not as the schema says.",
	"429": "Too many installs; `Retry-After` says when to try again.",
	"500": "The sandbox failed on its side.",
	"503": "No worker became free in time, too many requests wait already, or the sandbox is shutting down; `Retry-After` says when to try again.",
}

// describeErrors says of each error of op when it is answered, and shows one as the same code makes it.
func describeErrors(op *huma.Operation, path string, o Options) {
	for status, response := range op.Responses {
		media := response.Content[edge.ProblemType]
		if media == nil {
			continue
		}
		if words := errorWords[status]; words != "" {
			response.Description = words
		}
		code, err := strconv.Atoi(status)
		if err != nil {
			continue // "default"
		}
		p := exampleProblem(code, op, path, o)
		media.Example = p
		response.Headers = map[string]*huma.Param{}
		for name := range p.GetHeaders() {
			response.Headers[name] = &huma.Param{Description: "Seconds until another try is worth it.", Schema: &huma.Schema{Type: huma.TypeInteger}}
		}
		if code == http.StatusMethodNotAllowed {
			response.Headers["Allow"] = &huma.Param{Description: "The methods that the path takes.", Schema: &huma.Schema{Type: huma.TypeString}}
		}
	}
}

// exampleProblem makes an error the way it is made for a request.
func exampleProblem(status int, op *huma.Operation, path string, o Options) *edge.Problem {
	switch status {
	case http.StatusBadRequest:
		return edge.NewProblem(status, metrics.KindMalformed, edge.Decode([]byte(`{"`), new(any)).Error())
	case http.StatusForbidden:
		return edge.CheckOrigin(&http.Request{Method: http.MethodPost, URL: &url.URL{Path: path}, Header: http.Header{"Sec-Fetch-Site": {"cross-site"}}}, true)
	case http.StatusMethodNotAllowed:
		return edge.MethodNotAllowed(path, strings.Join(edge.Answered(op.Method), ", "))
	case http.StatusRequestTimeout:
		return edge.AsProblem(os.ErrDeadlineExceeded)
	case http.StatusRequestEntityTooLarge:
		return edge.BodyTooLarge(o.Bodies.Most())
	case http.StatusUnprocessableEntity:
		required := requiredFields[op.OperationID]
		return edge.Invalid(edge.ProblemError{Location: required.location, Message: required.missing})
	case http.StatusTooManyRequests:
		return operation.TooManyInstalls(10, time.Minute, 17*time.Second)
	case http.StatusServiceUnavailable:
		return edge.AsProblem(pool.ErrAcquireTimeout)
	default:
		return edge.NewProblem(status, metrics.KindInternal, edge.InternalDetail)
	}
}
