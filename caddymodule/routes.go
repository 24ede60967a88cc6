package caddymodule

import (
	"net/http"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"
)

// routes are the endpoints by path, relative to where the directive stands. They are fixed once made.
type routes map[string]*endpoint

// endpoint is what one path does.
type endpoint struct {
	methods map[string]http.HandlerFunc
	// allow is the value of the Allow header.
	allow string
	// sensitive paths are closed to other origins even for GET.
	sensitive bool
}

// add lets path answer method, and HEAD where it answers GET.
func (rs routes) add(method, path string, serve http.HandlerFunc) *endpoint {
	e := rs[path]
	if e == nil {
		e = &endpoint{methods: map[string]http.HandlerFunc{}}
		rs[path] = e
	}
	for _, m := range append([]string{method}, head[method]...) {
		e.methods[m] = serve
		if e.allow != "" {
			e.allow += ", "
		}
		e.allow += m
	}
	return e
}

// head is what comes along with a method.
var head = map[string][]string{http.MethodGet: {http.MethodHead}}

// addMCP gives the MCP front its three paths. The front itself knows which methods each takes.
func (rs routes) addMCP(front http.Handler) {
	for path, methods := range map[string][]string{
		"/mcp":         {http.MethodGet, http.MethodPost, http.MethodDelete},
		"/mcp/sse":     {http.MethodGet},
		"/mcp/message": {http.MethodPost},
	} {
		e := &endpoint{methods: map[string]http.HandlerFunc{}, allow: strings.Join(methods, ", "), sensitive: true}
		for _, method := range methods {
			e.methods[method] = front.ServeHTTP
		}
		rs[path] = e
	}
}

// serve answers r, or reports that its path is none of ours.
func (rs routes) serve(w http.ResponseWriter, r *http.Request, log *zap.Logger) (ours bool) {
	e := rs[r.URL.Path]
	if e == nil {
		return false
	}
	defer recoverPanic(w, r, log)
	if refused := checkOrigin(r, e.sensitive); refused != nil {
		writeProblem(w, refused)
		return true
	}
	serve := e.methods[r.Method]
	if serve == nil {
		w.Header().Set("Allow", e.allow)
		writeProblem(w, newProblem(http.StatusMethodNotAllowed, kindMethod, r.URL.Path+" takes "+e.allow))
		return true
	}
	w.Header()["X-Content-Type-Options"] = noSniff
	serve(w, r)
	return true
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
	writeProblem(w, newProblem(http.StatusInternalServerError, kindInternal, internalDetail))
}
