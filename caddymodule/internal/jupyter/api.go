package jupyter

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// apiVersion is the release of Jupyter Server whose API the front follows; clients may look at it.
const apiVersion = "2.17.0"

const kernelName = "python3"

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
		names = append(names, edge.Answered(method)...)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// methods returns the handler for each HTTP method that the path of r takes, nil when nothing is at the path.
func (f *Front) methods(r *http.Request) methodTable {
	rest, found := strings.CutPrefix(r.URL.Path, "/jupyter/api")
	if !found {
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	if len(parts) < 2 || parts[0] != "kernels" {
		switch rest {
		case "", "/":
			return methodTable{"GET": func(w http.ResponseWriter, _ *http.Request) {
				writeJSON(w, http.StatusOK, map[string]string{"version": apiVersion})
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

// notFound returns the problem for a path at which methods finds nothing.
func (f *Front) notFound(r *http.Request) *edge.Problem {
	detail := "no part of the Jupyter Server API has this path here: there are api, api/status, api/kernelspecs and api/kernels"
	switch {
	case strings.HasPrefix(r.URL.Path, "/jupyter/api/kernels/"):
		detail = "this kernel does not exist or has ended: start one with POST …/api/kernels; kernels that nobody uses end after " + f.o.idle.String()
	case strings.HasPrefix(r.URL.Path, "/jupyter/login"):
		detail = "there is no password here: choose token authentication in the client, or none"
	}
	return edge.NewProblem(http.StatusNotFound, metrics.KindNotFound, detail)
}

func (f *Front) serveStatus(w http.ResponseWriter, _ *http.Request) {
	kernels := f.list()
	sockets := 0
	for _, k := range kernels {
		sockets += k.model().Connections
	}
	f.mu.Lock()
	last := f.last
	f.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"started": timeText(f.started), "last_activity": timeText(last), "kernels": len(kernels), "connections": sockets,
	})
}

func serveKernelspecs(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"default": kernelName,
		"kernelspecs": map[string]any{kernelName: map[string]any{
			"name": kernelName,
			"spec": map[string]any{
				"argv": []string{}, "env": map[string]string{}, "display_name": "Python 3 (sandbox)", "language": "python",
				"interrupt_mode": "message", "metadata": map[string]any{},
			},
			"resources": map[string]string{},
		}},
	})
}

func (f *Front) serveList(w http.ResponseWriter, _ *http.Request) {
	models := []kernelModel{}
	for _, k := range f.list() {
		models = append(models, k.model())
	}
	slices.SortFunc(models, func(a, b kernelModel) int { return strings.Compare(a.ID, b.ID) })
	writeJSON(w, http.StatusOK, models)
}

// serveStart makes a kernel. The body may be empty, as Open WebUI sends it.
func (f *Front) serveStart(w http.ResponseWriter, r *http.Request) {
	body, refused := f.o.Bodies.Read(w, r)
	if refused != nil {
		edge.WriteProblem(w, refused)
		return
	}
	defer body.Free()
	var asked struct {
		Name *string `json:"name"`
	}
	if sent := body.Bytes(); len(sent) > 0 && json.Unmarshal(sent, &asked) != nil {
		edge.WriteProblem(w, edge.NewProblem(http.StatusBadRequest, metrics.KindMalformed, `the request body is not JSON such as {"name": "python3"}: send that, or nothing`))
		return
	}
	if name := asked.Name; name != nil && *name != "" && *name != kernelName && *name != "python" {
		edge.WriteProblem(w, edge.Invalid(edge.ProblemError{Location: "body.name", Message: `must be "python3": no other kernel is here`}))
		return
	}
	k, refused := f.start()
	if refused != nil {
		edge.WriteProblem(w, refused)
		return
	}
	w.Header().Set("Location", strings.TrimSuffix(edge.ExternalPath(r), "/")+"/"+k.id)
	writeJSON(w, http.StatusCreated, k.model())
}

// start makes a kernel. It has no process until its first cell runs.
func (f *Front) start() (*kernel, *edge.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closing:
		p := edge.NewProblem(http.StatusServiceUnavailable, metrics.KindShuttingDown, "the sandbox is shutting down or changing its configuration: try again in a second")
		p.RetryAfter = time.Second
		return nil, p
	case len(f.kernels) >= f.o.maxKernels:
		p := edge.NewProblem(http.StatusServiceUnavailable, metrics.KindQueueFull, tooManyKernels(f.o.maxKernels, f.o.idle))
		p.RetryAfter = time.Second
		return nil, p
	}
	k := newKernel(f)
	f.kernels[k.id] = k
	f.last = k.last
	return k, nil
}

func (f *Front) kernel(id string) *kernel {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kernels[id]
}

// remove ends a kernel with its cells, its process and its sockets. Their close frames say why.
func (f *Front) remove(k *kernel, why string) {
	f.mu.Lock()
	delete(f.kernels, k.id)
	f.mu.Unlock()
	k.end(why)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body := mustJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
