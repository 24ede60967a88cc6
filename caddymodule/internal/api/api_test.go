package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{})
	status, body, header := edgetest.Send(t, "GET", site.URL+"/openapi.json", nil, nil)
	if status != 200 || header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("got %d %v", status, header)
	}
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]struct{ Content map[string]any }
		}
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		t.Fatal(err)
	}
	execute := document.Paths["/execute"]["post"]
	if document.OpenAPI != "3.1.0" || execute.OperationID != "execute_python" || len(document.Paths) != 2 {
		t.Errorf("got %s %+v", document.OpenAPI, document.Paths)
	}
	for _, status := range []string{"400", "403", "413", "422", "500", "503"} {
		if execute.Responses[status].Content["application/problem+json"] == nil {
			t.Errorf("%s is not documented", status)
		}
	}
	if document.Paths["/health"]["get"].Responses["503"].Content["application/json"] == nil {
		t.Error("503 of /health is not documented")
	}
	timeout, err := json.Marshal(document.Components.Schemas["ExecuteInput"]["properties"].(map[string]any)["timeout"])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"default":30`, `"exclusiveMinimum":0`, `"maximum":120`} {
		if !strings.Contains(string(timeout), want) {
			t.Errorf("got %s, want %s in it", timeout, want)
		}
	}
	for name, schema := range document.Components.Schemas {
		if schema["additionalProperties"] == false {
			t.Errorf("%s may never grow", name)
		}
	}
	for _, never := range []string{"$schema", "ErrorModel"} {
		if strings.Contains(body, never) {
			t.Errorf("%s is in the document", never)
		}
	}
}
