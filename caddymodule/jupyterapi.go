package caddymodule

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// jupyterAPIVersion is the release of Jupyter Server whose API is spoken; clients may look at it.
const jupyterAPIVersion = "2.17.0"

const jupyterKernelName = "python3"

// kernelModel is a kernel as the API shows it.
type kernelModel struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	LastActivity   string `json:"last_activity"`
	ExecutionState string `json:"execution_state"`
	Connections    int    `json:"connections"`
}

type methodTable map[string]http.HandlerFunc

func allowed(methods methodTable) string {
	var names []string
	for method := range methods {
		names = append(names, answered(method)...)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// methods returns what the path of r takes, nil when there is nothing at it.
func (f *jupyterFront) methods(r *http.Request) methodTable {
	rest, found := strings.CutPrefix(r.URL.Path, "/jupyter/api")
	if !found {
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	if len(parts) < 2 || parts[0] != "kernels" {
		switch rest {
		case "", "/":
			return methodTable{"GET": func(w http.ResponseWriter, _ *http.Request) {
				writeJSON(w, http.StatusOK, map[string]string{"version": jupyterAPIVersion})
			}}
		case "/status":
			return methodTable{"GET": f.serveStatus}
		case "/kernelspecs":
			return methodTable{"GET": serveKernelspecs}
		case "/kernels":
			return methodTable{"GET": f.serveList, "POST": f.serveStart}
		}
		return nil
	}
	k := f.kernel(parts[1])
	switch {
	case k == nil || len(parts) > 3:
		return nil
	case len(parts) == 2:
		return methodTable{
			"GET": func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, k.model()) },
			"DELETE": func(w http.ResponseWriter, _ *http.Request) {
				f.remove(k, "the kernel was deleted")
				w.WriteHeader(http.StatusNoContent)
			},
		}
	}
	switch parts[2] {
	case "interrupt":
		return methodTable{"POST": func(w http.ResponseWriter, _ *http.Request) {
			k.interrupt()
			w.WriteHeader(http.StatusNoContent)
		}}
	case "restart":
		return methodTable{"POST": func(w http.ResponseWriter, _ *http.Request) {
			k.restart()
			writeJSON(w, http.StatusOK, k.model())
		}}
	case "channels":
		return methodTable{"GET": func(w http.ResponseWriter, r *http.Request) { f.serveChannels(w, r, k) }}
	}
	return nil
}

// notFound says what is not there.
func (f *jupyterFront) notFound(r *http.Request) *problem {
	detail := "no part of the Jupyter Server API has this path here: there are api, api/status, api/kernelspecs and api/kernels"
	switch {
	case strings.HasPrefix(r.URL.Path, "/jupyter/api/kernels/"):
		detail = "this kernel does not exist or has ended: start one with POST …/api/kernels; kernels that nobody uses end after " + f.o.idle.String()
	case strings.HasPrefix(r.URL.Path, "/jupyter/login"):
		detail = "there is no password here: choose token authentication in the client, or none"
	}
	return newProblem(http.StatusNotFound, kindNotFound, detail)
}

func (f *jupyterFront) serveStatus(w http.ResponseWriter, _ *http.Request) {
	kernels := f.list()
	sockets := 0
	for _, k := range kernels {
		sockets += k.model().Connections
	}
	f.mu.Lock()
	last := f.last
	f.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"started": jupyterTime(f.started), "last_activity": jupyterTime(last), "kernels": len(kernels), "connections": sockets,
	})
}

func serveKernelspecs(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"default": jupyterKernelName,
		"kernelspecs": map[string]any{jupyterKernelName: map[string]any{
			"name": jupyterKernelName,
			"spec": map[string]any{
				"argv": []string{}, "env": map[string]string{}, "display_name": "Python 3 (sandbox)", "language": "python",
				"interrupt_mode": "message", "metadata": map[string]any{},
			},
			"resources": map[string]string{},
		}},
	})
}

func (f *jupyterFront) serveList(w http.ResponseWriter, _ *http.Request) {
	models := []kernelModel{}
	for _, k := range f.list() {
		models = append(models, k.model())
	}
	slices.SortFunc(models, func(a, b kernelModel) int { return strings.Compare(a.ID, b.ID) })
	writeJSON(w, http.StatusOK, models)
}

// serveStart makes a kernel. Open WebUI sends no body.
func (f *jupyterFront) serveStart(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, f.o.MaxBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			writeProblem(w, newProblem(http.StatusRequestEntityTooLarge, kindTooLarge, "the request body is larger than limits request_body allows: send the name of a kernel only"))
			return
		}
		writeProblem(w, asProblem(err))
		return
	}
	var asked struct {
		Name *string `json:"name"`
	}
	if len(body) > 0 && json.Unmarshal(body, &asked) != nil {
		writeProblem(w, newProblem(http.StatusBadRequest, kindMalformed, `the request body is not JSON such as {"name": "python3"}: send that, or nothing`))
		return
	}
	if name := asked.Name; name != nil && *name != "" && *name != jupyterKernelName && *name != "python" {
		writeProblem(w, invalid(problemError{"body.name", `must be "python3": no other kernel is here`}))
		return
	}
	k, refused := f.start()
	if refused != nil {
		writeProblem(w, refused)
		return
	}
	w.Header().Set("Location", strings.TrimSuffix(externalPath(r), "/")+"/"+k.id)
	writeJSON(w, http.StatusCreated, k.model())
}

// start makes a kernel, which costs nothing until a cell runs.
func (f *jupyterFront) start() (*jupyterKernel, *problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closing:
		p := newProblem(http.StatusServiceUnavailable, kindShuttingDown, "the sandbox is shutting down or changing its configuration: try again in a second")
		p.RetryAfter = time.Second
		return nil, p
	case len(f.kernels) >= f.o.maxKernels:
		p := newProblem(http.StatusServiceUnavailable, kindQueueFull, tooManyKernels(f.o.maxKernels, f.o.idle))
		p.RetryAfter = time.Second
		return nil, p
	}
	k := newJupyterKernel(f)
	f.kernels[k.id] = k
	f.last = k.last
	return k, nil
}

func (f *jupyterFront) kernel(id string) *jupyterKernel {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kernels[id]
}

// remove ends a kernel, what runs in it and its sockets, which hear why.
func (f *jupyterFront) remove(k *jupyterKernel, why string) {
	f.mu.Lock()
	delete(f.kernels, k.id)
	f.mu.Unlock()
	k.end(why)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body := mustJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:errcheck // the client is gone
}
