package index

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"slices"
	"strings"
)

const (
	jsonPage = "application/vnd.pypi.simple.v1+json"
	htmlPage = "application/vnd.pypi.simple.v1+html"
)

// servePage answers for one project, or with the list of all when project is "".
func (s *Server) servePage(w http.ResponseWriter, r *http.Request, project string) {
	s.mu.Lock()
	files := slices.DeleteFunc(slices.Clone(s.files), func(f *served) bool { return f.project != project })
	known := project == "" || s.projects[project]
	noJSON, noHTML := s.noJSON, s.noHTML
	projects := make([]string, 0, len(s.projects))
	for name := range s.projects {
		projects = append(projects, name)
	}
	s.mu.Unlock()
	slices.Sort(projects)

	accept := r.Header.Get("Accept")
	isJSON := !noJSON && strings.Contains(accept, jsonPage)
	contentType := "text/html; charset=utf-8"
	switch {
	case !known:
		http.NotFound(w, r)
		return
	case isJSON:
		contentType = jsonPage
	case noHTML:
		http.Error(w, "JSON is served only", http.StatusNotAcceptable)
		return
	case strings.Contains(accept, htmlPage):
		contentType = htmlPage
	}
	w.Header().Set("Content-Type", contentType)
	switch {
	case isJSON && project == "":
		writeJSONList(w, projects)
	case isJSON:
		s.writeJSON(w, project, files)
	case project == "":
		for _, name := range projects {
			_, _ = fmt.Fprintf(w, "<a href=\"/simple/%s/\">%s</a>\n", name, name)
		}
	default:
		s.writeHTML(w, project, files)
	}
}

func writeJSONList(w http.ResponseWriter, projects []string) {
	type project struct {
		Name string `json:"name"`
	}
	list := make([]project, len(projects))
	for i, name := range projects {
		list[i].Name = name
	}
	must(json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.0"}, "projects": list}))
}

// address is what pages say: relative to the page, as many real indexes have it.
func (f *served) address() string {
	if f.URL != "" {
		return f.URL
	}
	return "../../files/" + f.Name
}

// writeJSON writes PEP 691.
func (s *Server) writeJSON(w http.ResponseWriter, project string, files []*served) {
	list := make([]map[string]any, 0, len(files))
	for _, f := range files {
		entry := map[string]any{"filename": f.Name, "url": f.address(), "hashes": map[string]string{}, "yanked": false}
		if !f.NoHash {
			entry["hashes"] = map[string]string{"sha256": f.sha256}
		}
		if !f.NoSize {
			entry["size"] = f.size()
		}
		if f.RequiresPython != "" {
			entry["requires-python"] = f.RequiresPython
		}
		if f.Metadata != nil {
			// Not as dist-info-metadata, too, which ends pip 22.3 to 23.0 (PEP 714).
			entry["core-metadata"] = map[string]string{"sha256": f.metadataHash()}
		}
		if f.YankedReason != "" {
			entry["yanked"] = f.YankedReason
		} else if f.Yanked {
			entry["yanked"] = true
		}
		list = append(list, entry)
	}
	must(json.NewEncoder(w).Encode(map[string]any{
		"meta": map[string]string{"api-version": "1.1"}, "name": project, "files": list, "versions": []string{},
	}))
}

// writeHTML writes PEP 503.
func (s *Server) writeHTML(w http.ResponseWriter, project string, files []*served) {
	var b strings.Builder
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html><head><title>%s</title></head><body>\n", project)
	for _, f := range files {
		address := f.address()
		if separator := "#"; !f.NoHash {
			if strings.Contains(address, "#") {
				separator = "&"
			}
			address += separator + "sha256=" + f.sha256
		}
		fmt.Fprintf(&b, `<a href="%s"`, html.EscapeString(address))
		if f.RequiresPython != "" {
			fmt.Fprintf(&b, ` data-requires-python="%s"`, html.EscapeString(f.RequiresPython))
		}
		if f.Yanked || f.YankedReason != "" {
			fmt.Fprintf(&b, ` data-yanked="%s"`, html.EscapeString(f.YankedReason))
		}
		if f.Metadata != nil {
			fmt.Fprintf(&b, ` data-core-metadata="sha256=%s" data-dist-info-metadata="sha256=%[1]s"`, f.metadataHash())
		}
		fmt.Fprintf(&b, ">%s</a><br>\n", html.EscapeString(f.Name))
	}
	b.WriteString("</body></html>\n")
	_, _ = w.Write([]byte(b.String()))
}
