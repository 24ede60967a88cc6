package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		stat   pool.Stat
		status int
		word   string
	}{
		{"ready", pool.Stat{Ready: true, Templates: 1, TemplatesTarget: 2}, 200, "ok"},
		{"draining", pool.Stat{Draining: true}, 503, "draining"},
		{"without a template", pool.Stat{TemplatesTarget: 2}, 503, "unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.stat.Workers = map[pool.State]int{pool.StateIdle: 3}
			c.stat.Guarantees = []pool.Guarantee{{Name: "a promise"}}
			site := newSite(t, &fakeRunner{}, c.stat)
			status, body, header := edgetest.Send(t, "GET", site.URL+"/health", nil, nil)
			if status != c.status || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %d %v", status, header)
			}
			var out operation.HealthOutput
			if err := json.Unmarshal([]byte(body), &out); err != nil {
				t.Fatal(err)
			}
			if out.Status != c.word || out.Workers["idle"] != 3 || len(out.Guarantees) != 1 || out.Version == "" || out.Uptime < 3600 {
				t.Errorf("got %s", body)
			}
			if strings.Contains(body, "null") {
				t.Errorf("a list is null in %s", body)
			}
		})
	}
}

func TestHealthWhileStarting(t *testing.T) {
	t.Parallel()
	state := &operation.Health{Stat: func() pool.Stat { return pool.Stat{} }, Started: time.Now()}
	if out, ready := state.Look(t.Context()); ready || out.Status != "starting" {
		t.Errorf("got %v %s", ready, out.Status)
	}
}
