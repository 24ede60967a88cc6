// Package edge is what HTTP is to all surfaces: routes, bodies, errors, who may send a request, and what access logs show.
package edge

import (
	"net/http"
	"path"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// Routes are the endpoints by path, relative to where the directive stands. A first part that ends in a slash stands for
// all below it that has no endpoint of its own. They are fixed once made.
type Routes map[string]*endpoint

// endpoint is what one path does.
type endpoint struct {
	methods map[string]http.HandlerFunc
	// allow is the value of the Allow header.
	allow string
	// sensitive paths are closed to other origins and names even for GET, and their requests hold secrets.
	sensitive bool
}

// Add lets path answer method, and HEAD where it answers GET.
func (rs Routes) Add(method, path string, serve http.HandlerFunc) {
	e := rs.at(path)
	for _, m := range Answered(method) {
		e.answer(m, serve)
	}
}

// AddSensitive lets path answer method, and closes it to other origins and names whatever the method. Its requests hold
// secrets, and access logs leave these out.
func (rs Routes) AddSensitive(method, path string, serve http.HandlerFunc) {
	e := rs.at(path)
	e.sensitive = true
	e.answer(method, serve)
}

func (rs Routes) at(path string) *endpoint {
	if rs[path] == nil {
		rs[path] = &endpoint{methods: map[string]http.HandlerFunc{}}
	}
	return rs[path]
}

func (e *endpoint) answer(method string, serve http.HandlerFunc) {
	e.methods[method] = serve
	if e.allow != "" {
		e.allow += ", "
	}
	e.allow += method
}

// IsSensitive reports whether requests of a path may hold secrets: those of a sensitive endpoint, and those of a path that has none but
// begins like one, as people and clients get a path wrong ("//mcp", "/MCP/", "/jupyter").
func (rs Routes) IsSensitive(requested string) bool {
	if e := rs.find(requested); e != nil {
		return e.sensitive
	}
	// Paths of endpoints are in lower case, without needless slashes and dots.
	first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+strings.ToLower(requested)), "/"), "/")
	for at, e := range rs {
		if e.sensitive && (at == "/"+first || strings.HasPrefix(at, "/"+first+"/")) {
			return true
		}
	}
	return false
}

// Answered returns the methods that a path answers which was added for method.
func Answered(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

// Serve answers r, or reports that its path is none of ours. hosts are the operator's names for the server.
func (rs Routes) Serve(w http.ResponseWriter, r *http.Request, log *zap.Logger, hosts ...string) (ours bool) {
	e := rs.find(r.URL.Path)
	if e == nil {
		return false
	}
	ours = true //nolint:wastedassign // what is returned when recoverPanic has handled a panic
	defer recoverPanic(w, r, log)
	w.Header()["X-Content-Type-Options"] = noSniff
	if refused := CheckOrigin(r, e.sensitive, hosts...); refused != nil {
		WriteProblem(w, refused)
		return true
	}
	serve := e.methods[r.Method]
	if serve == nil {
		w.Header().Set("Allow", e.allow)
		WriteProblem(w, MethodNotAllowed(r.URL.Path, e.allow))
		return true
	}
	serve(w, r)
	return true
}

func (rs Routes) find(path string) *endpoint {
	if e := rs[path]; e != nil {
		return e
	}
	if first, _, below := strings.Cut(strings.TrimPrefix(path, "/"), "/"); below {
		return rs["/"+first+"/"]
	}
	return nil
}

// MethodNotAllowed is the problem of a path that takes only the methods in allow.
func MethodNotAllowed(path, allow string) *Problem {
	return NewProblem(http.StatusMethodNotAllowed, metrics.KindMethod, path+" takes "+allow)
}

var noSniff = []string{"nosniff"}

// recoverPanic answers 500 for a panic of ours. It must be deferred directly.
func recoverPanic(w http.ResponseWriter, r *http.Request, log *zap.Logger) {
	panicked := recover()
	if panicked == nil {
		return
	}
	if panicked == http.ErrAbortHandler { //nolint:errorlint // net/http compares like this, too
		panic(panicked)
	}
	log.Error("request panicked", zap.String("path", r.URL.Path), zap.Any("panic", panicked), zap.ByteString("stack", debug.Stack()))
	WriteProblem(w, NewProblem(http.StatusInternalServerError, metrics.KindInternal, InternalDetail))
}
