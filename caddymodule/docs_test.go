package caddymodule

import "testing"

func TestDocsOff(t *testing.T) {
	t.Parallel()
	needPython(t)
	for config, served := range map[string]bool{`}`: true, `,"docs":true}`: true, `,"docs":false}`: false} {
		h, err := provision(t, smallPool("docs-off")+config)
		if err != nil {
			t.Fatal(err)
		}
		if (h.routes["/docs"] != nil) != served || (h.routes["/docs/start.js"] != nil) != served {
			t.Errorf("%s: got %v", config, h.routes["/docs"])
		}
		if h.routes["/openapi.json"] == nil {
			t.Errorf("%s: programs have no /openapi.json", config)
		}
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}
