package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkExecuteRoute is what the surface costs beside the pool.
func BenchmarkExecuteRoute(b *testing.B) {
	rs := edge.Routes{}
	err := AddOperations(rs,
		&operation.Executions{Pool: &fakeRunner{}, DefaultTimeout: 30 * time.Second, MaxTimeout: 120 * time.Second, Log: zap.NewNop()}, nil,
		Options{DefaultTimeout: 30 * time.Second, MaxTimeout: 120 * time.Second, Bodies: edge.NewBodies(testMaxBody, 2*testMaxBody, 0),
			Health: (&operation.Health{Stat: func() pool.Stat { return pool.Stat{} }}).Look, InFlight: new(atomic.Int64)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/execute", strings.NewReader(`{"code":"print(1)","timeout":10}`))
		rs.Serve(&discard{header: http.Header{}}, r, zap.NewNop())
	}
}
