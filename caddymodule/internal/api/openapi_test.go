package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// openAPI is what tests read of the document.
type openAPI struct {
	OpenAPI string
	Servers []struct{ URL string }
	Tags    []struct{ Name, Description string }
	Paths   map[string]map[string]struct {
		OperationID, Summary, Description string
		Tags                              []string
		RequestBody                       struct{ Content map[string]media }
		Responses                         map[string]struct {
			Description string
			Headers     map[string]any
			Content     map[string]media
		}
	}
	Components struct{ Schemas map[string]map[string]any }
}

type media struct {
	Example  json.RawMessage
	Examples map[string]struct {
		Summary string
		Value   json.RawMessage
	}
}

func readOpenAPI(t *testing.T, url string) openAPI {
	t.Helper()
	status, body, header := edgetest.Send(t, "GET", url+"/openapi.json", nil, nil)
	if status != 200 || header.Get("ETag") == "" {
		t.Fatalf("got %d %v", status, header)
	}
	var doc openAPI
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsCompleteForPeopleAndModels(t *testing.T) {
	t.Parallel()
	doc := readOpenAPI(t, newSite(t, &fakeRunner{}, pool.Stat{}).URL)
	// Anything absolute would be wrong behind some proxy.
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "." {
		t.Errorf("got servers %+v", doc.Servers)
	}
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		tags[tag.Name] = tag.Description != ""
	}
	for path, operations := range doc.Paths {
		for _, op := range operations {
			if op.OperationID == "" || op.Summary == "" || op.Description == "" || len(op.Tags) != 1 || !tags[op.Tags[0]] {
				t.Errorf("%s: got %+v", path, op)
			}
			for status, response := range op.Responses {
				content, isError := response.Content["application/problem+json"]
				if status != "default" && (!strings.HasSuffix(response.Description, ".") || isError && content.Example == nil) {
					t.Errorf("%s %s: got %+v", path, status, response)
				}
			}
			if len(op.Responses["200"].Content["application/json"].Examples) == 0 {
				t.Errorf("%s has no example of its answer", path)
			}
		}
	}
	for name, schema := range doc.Components.Schemas {
		for field, property := range schema["properties"].(map[string]any) {
			if property.(map[string]any)["description"] == nil {
				t.Errorf("%s.%s has no description", name, field)
			}
		}
	}
	timeout := doc.Components.Schemas["ExecuteInput"]["properties"].(map[string]any)["timeout"].(map[string]any)
	if words := timeout["description"].(string); !strings.Contains(words, "up to 120; 30 unless") {
		t.Errorf("the bounds are not said in words: %s", words)
	}
	if responses := doc.Paths["/execute"]["post"].Responses; responses["503"].Headers["Retry-After"] == nil || responses["405"].Headers["Allow"] == nil {
		t.Error("headers are not documented")
	}
}

// Errors look as the document says, to the word.
func TestOpenAPIShowsTheErrorsThatAreAnswered(t *testing.T) {
	t.Parallel()
	doc := readOpenAPI(t, newSite(t, &fakeRunner{}, pool.Stat{}).URL)
	for _, c := range []struct {
		status, method, body string
		header               map[string]string
		err                  error
	}{
		{"400", "POST", `{"`, nil, nil},
		{"403", "POST", `{}`, map[string]string{"Sec-Fetch-Site": "cross-site"}, nil},
		{"405", "GET", ``, nil, nil},
		{"413", "POST", strings.Repeat(" ", testMaxBody+1), nil, nil},
		{"422", "POST", `{}`, nil, nil},
		{"500", "POST", `{"code": "panic"}`, nil, nil},
		{"503", "POST", `{"code": "1"}`, nil, pool.ErrAcquireTimeout},
	} {
		t.Run(c.status, func(t *testing.T) {
			t.Parallel()
			site := newSite(t, &fakeRunner{err: c.err}, pool.Stat{})
			_, body, header := edgetest.Send(t, c.method, site.URL+"/execute", strings.NewReader(c.body), c.header)
			documented := doc.Paths["/execute"]["post"].Responses[c.status]
			var got, want any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(documented.Content["application/problem+json"].Example, &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %s\nwant %v", body, want)
			}
			for name := range documented.Headers {
				if header.Get(name) == "" {
					t.Errorf("%s is documented and not sent", name)
				}
			}
		})
	}
}

func TestOpenAPIExamplesHaveAnAnswer(t *testing.T) {
	t.Parallel()
	op := readOpenAPI(t, newSite(t, &fakeRunner{}, pool.Stat{}).URL).Paths["/execute"]["post"]
	requests, answers := op.RequestBody.Content["application/json"].Examples, op.Responses["200"].Content["application/json"].Examples
	if len(requests) < 2 || len(requests) != len(answers) {
		t.Errorf("got %d requests and %d answers", len(requests), len(answers))
	}
	for name, request := range requests {
		if answers[name].Summary != request.Summary {
			t.Errorf("%s has no answer", name)
		}
	}
	// What "Try it out" starts with.
	for name := range requests {
		if name < "hello" {
			t.Errorf("%s comes before hello", name)
		}
	}
}
