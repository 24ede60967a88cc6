// Package api is the sandbox's own HTTP API, its OpenAPI document, and the page that shows it.
package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

type (
	executeRequest  struct{ Body operation.ExecuteInput }
	executeResponse struct{ Body operation.ExecuteOutput }
	installRequest  struct{ Body operation.InstallInput }
	installResponse struct{ Body operation.InstallOutput }
	listResponse    struct {
		CacheControl string `header:"Cache-Control"`
		Body         operation.PackageList
	}
	healthResponse struct {
		Status       int
		CacheControl string `header:"Cache-Control"`
		Body         operation.HealthOutput
	}
)

// bodyErrors are the statuses with which an operation that takes a body may refuse it; 422 comes with its schema.
var bodyErrors = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
	http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}

// Options is what the HTTP operations need to know.
type Options struct {
	// DefaultTimeout and MaxTimeout bound an execution.
	DefaultTimeout, MaxTimeout time.Duration
	// Bodies reads what clients send.
	Bodies *edge.Bodies
	// Health is asked for each GET /health.
	Health func(context.Context) (operation.HealthOutput, bool)
	// InFlight counts requests from before their body is read until they are answered.
	InFlight *atomic.Int64
}

// AddOperations declares the HTTP operations and adds them to rs, with the OpenAPI document that the same declarations make.
// in is nil where nothing can be installed.
func AddOperations(rs edge.Routes, ex operation.Executor, in operation.Packages, o Options) error {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[edge.Problem]())
	boundExecute(schemas, o)

	format := huma.Format{Marshal: edge.EncodeTo, Unmarshal: edge.Decode}
	api := humago.New(mux{rs, o.Bodies, o.InFlight}, huma.Config{
		OpenAPI:       newOpenAPI(schemas, in),
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{toProblem(o.MaxTimeout)},
	})

	huma.Register(api, huma.Operation{
		OperationID: "execute_python",
		Method:      http.MethodPost,
		Path:        "/execute",
		Tags:        []string{tagExecution},
		Summary:     "Run Python",
		Description: "Runs Python source as a script in a fresh, isolated process and returns its output. " +
			"Print what you want to see: the value of the last expression is not shown. " +
			"Nothing is kept from one call to the next: no variables, imports or files. There is no network" + operation.PackagesWords(in) + ". " +
			"A program that fails is a normal result: see status, exit_code and the traceback in stderr.",
		Errors:       bodyErrors,
		MaxBodyBytes: o.Bodies.Most() + 1, // mux has the last word, and huma refuses the limit itself
	}, func(ctx context.Context, in *executeRequest) (*executeResponse, error) {
		out, err := ex.Execute(ctx, in.Body)
		if err != nil {
			return nil, edge.AsProblem(err)
		}
		return &executeResponse{out}, nil
	})

	if in != nil {
		addInstall(api, in, o)
	}
	health := huma.Operation{
		OperationID: "health",
		Method:      http.MethodGet,
		Path:        "/health",
		Tags:        []string{tagServer},
		Summary:     "Readiness and state",
		Description: "Answers 200 when executions are taken, and 503 with the same body while starting, draining or without a working template.",
		Responses:   map[string]*huma.Response{},
	}
	huma.Register(api, health, func(ctx context.Context, _ *struct{}) (*healthResponse, error) {
		out := &healthResponse{Status: http.StatusOK, CacheControl: "no-store"}
		var ready bool
		if out.Body, ready = o.Health(ctx); !ready {
			out.Status = http.StatusServiceUnavailable
		}
		return out, nil
	})
	responses := api.OpenAPI().Paths["/health"].Get.Responses
	responses["503"] = &huma.Response{Description: "Executions are not taken; the body is the same.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: responses["200"].Content["application/json"].Schema}}}

	return addOpenAPI(rs, api, o)
}

// addInstall declares the operations on packages.
func addInstall(api huma.API, in operation.Packages, o Options) {
	input := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[operation.InstallInput](), false, "")
	input.AdditionalProperties = nil // as for executions
	input.Properties["version"].Default = "latest"
	input.PrecomputeMessages()
	huma.Register(api, huma.Operation{
		OperationID:  "pip_install",
		Method:       http.MethodPost,
		Path:         "/pip_install",
		Tags:         []string{tagPackages},
		Summary:      "Install a package",
		Description:  "Installs a Python package, with what it needs, for every later execution of everyone who uses this server. A package that cannot be installed is a normal result: see status and message.",
		Errors:       append([]int{http.StatusTooManyRequests}, bodyErrors...),
		MaxBodyBytes: o.Bodies.Most() + 1, // as for executions
	}, func(ctx context.Context, r *installRequest) (*installResponse, error) {
		out, err := in.Install(ctx, r.Body, nil)
		if err != nil {
			return nil, edge.AsProblem(err)
		}
		return &installResponse{out}, nil
	})
	describeInstall(api.OpenAPI().Components.Schemas)
	huma.Register(api, huma.Operation{
		OperationID: "list_packages",
		Method:      http.MethodGet,
		Path:        "/packages",
		Tags:        []string{tagPackages},
		Summary:     "Packages that programs can import",
		Description: "Lists what was installed here, and what comes with the server's Python.",
		Errors:      []int{http.StatusForbidden, http.StatusMethodNotAllowed},
	}, func(ctx context.Context, _ *struct{}) (*listResponse, error) {
		out, err := in.List(ctx)
		if err != nil {
			return nil, edge.AsProblem(err)
		}
		return &listResponse{CacheControl: "no-store", Body: out}, nil
	})
}

// boundExecute puts into the schema of ExecuteInput what depends on the configuration.
func boundExecute(schemas huma.Registry, o Options) {
	input := schemas.Schema(reflect.TypeFor[operation.ExecuteInput](), false, "")
	input.AdditionalProperties = nil // clients send fields of their own, which are ignored
	timeout := input.Properties["timeout"]
	most := o.MaxTimeout.Seconds()
	timeout.Maximum, timeout.Default = &most, o.DefaultTimeout.Seconds()
	// Said in words, too: not all that show a schema to a model pass its keywords on.
	timeout.Description += fmt.Sprintf(" More than 0 and up to %s; %s unless it is given.", operation.Seconds(most), operation.Seconds(o.DefaultTimeout.Seconds()))
	timeout.PrecomputeMessages()
	input.Properties["stdin"].Default = ""
	input.PrecomputeMessages()
}

// toProblem turns the errors that huma makes into ours, with words that a model can act on. huma's own would also echo
// the value, which may be a megabyte of code.
func toProblem(maxTimeout time.Duration) huma.Transformer {
	rules := map[string]string{
		"body.code":    operation.CodeRule,
		"body.timeout": operation.TimeoutRule(maxTimeout),
		"body.stdin":   "must be a string",
		"body.package": `must be a string with a package's name, such as "requests", of at most 200 characters`,
		"body.version": `must be a string such as "2.31.0", ">=2,<3" or "latest", of at most 200 characters`,
	}
	return func(ctx huma.Context, _ string, v any) (any, error) {
		model, ok := v.(*huma.ErrorModel)
		if !ok {
			return v, nil
		}
		p := edge.NewProblem(model.Status, metrics.KindMalformed, model.Detail)
		required := requiredFields[ctx.Operation().OperationID]
		switch {
		case model.Status == http.StatusUnprocessableEntity:
			p = edge.Invalid(fieldErrors(model.Errors, rules, required)...)
		case len(model.Errors) > 0:
			p.Detail = model.Errors[0].Message
		case model.Status == http.StatusBadRequest: // the only thing that huma itself finds before it decodes
			p.Detail = "the request body is empty: send a JSON object such as " + required.example
		}
		p.Count()
		return p, nil
	}
}

// requiredField is the one field that an operation cannot do without.
type requiredField struct{ example, location, missing string }

var requiredFields = map[string]requiredField{
	"execute_python": {`{"code": "print(1)"}`, "body.code", "is missing: send the Python source to run as a string"},
	"pip_install":    {`{"package": "requests"}`, "body.package", "is missing: send the name of the package to install as a string"},
}

// wrongKinds are huma's words about a value of another kind than the schema has.
var wrongKinds = []string{validation.MsgExpectedString, validation.MsgExpectedNumber, validation.MsgExpectedInteger,
	validation.MsgExpectedBoolean, validation.MsgExpectedArray, validation.MsgExpectedObject}

// fieldErrors says what each field at fault must be, once for each field.
func fieldErrors(details []*huma.ErrorDetail, rules map[string]string, required requiredField) []edge.ProblemError {
	var fields []edge.ProblemError
	said := map[string]bool{}
	for _, detail := range details {
		field := edge.ProblemError{Location: detail.Location, Message: detail.Message}
		switch rule, known := rules[field.Location]; {
		case known:
			field.Message = rule
			if slices.Contains(wrongKinds, detail.Message) {
				field.Message += "; it came as " + operation.SentKind(strings.TrimPrefix(field.Location, "body."), detail.Value)
			}
		case field.Location == "body" && detail.Message == "expected object":
			field.Message = "must be a JSON object such as " + required.example
		case field.Location == "body":
			field = edge.ProblemError{Location: required.location, Message: required.missing}
		}
		if !said[field.Location] {
			said[field.Location] = true
			fields = append(fields, field)
		}
	}
	return fields
}
