package packages

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/html"
)

// File is one file of a project on an index.
type File struct {
	// Name of the file, as the index says. It is untrusted, and may have any character but a slash.
	Name string
	// URL is absolute, without fragment, user and password. That of a local file begins with file://.
	URL string
	// Version as in the file's name: neither checked nor normalized (PEP 440).
	Version string
	// Wheel and Sdist say which kind of distribution the file is. Exactly one is true.
	Wheel, Sdist bool
	// Yanked says that the file is only for a request of exactly this version (PEP 592).
	Yanked bool
	// YankedReason is the index's reason for Yanked, or "".
	YankedReason string
	// RequiresPython is the specifier of the Python versions for which the file is (PEP 440); "" for any, or unknown.
	RequiresPython string
	// Size in bytes; -1 when the index does not say it.
	Size int64
	// SHA256 in lower-case hexadecimal, or "" when the index does not say it.
	SHA256 string
	// Metadata says that the index serves the file's METADATA separately (PEP 658 and 714).
	Metadata bool
}

// Page is what the indexes and find-links together have of a project.
type Page struct {
	// Found says that an index or find-links has the project. An index may have it without files.
	Found bool
	// Files in the order of the indexes, those of find-links last. The same file may come from several indexes.
	Files []File
}

// Hosts returns host:port of every URL in the page, each once, in the order of Files. Files may be fetched from these hosts,
// since an index that the operator has configured names them.
func (p Page) Hosts() []string {
	var hosts []string
	seen := map[string]bool{"": true}
	for i := range p.Files {
		u, err := url.Parse(p.Files[i].URL)
		if err != nil {
			continue
		}
		if host := hostOf(u); !seen[host] {
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// parsePage reads a page of an index (PEP 503 and 691) that came from u. known is false when contentType is not that of such a
// page.
func parsePage(u *url.URL, contentType string, body io.Reader) (files []File, known bool, err error) {
	media, _, _ := mime.ParseMediaType(contentType)
	switch media {
	case "application/vnd.pypi.simple.v1+json":
		files, err = parseJSONPage(u, body)
		return files, true, err
	case "text/html", "application/vnd.pypi.simple.v1+html":
		files, err = parseHTMLPage(u, body)
		return files, true, err
	}
	return nil, false, nil
}

// parseJSONPage reads a page in the JSON format of PEP 691.
func parseJSONPage(base *url.URL, body io.Reader) ([]File, error) {
	var page struct {
		Files []struct {
			URL            string          `json:"url"`
			Hashes         json.RawMessage `json:"hashes"`
			RequiresPython json.RawMessage `json:"requires-python"`
			Yanked         json.RawMessage `json:"yanked"`
			Size           json.RawMessage `json:"size"`
			CoreMetadata   json.RawMessage `json:"core-metadata"`
			OldMetadata    json.RawMessage `json:"dist-info-metadata"`
		} `json:"files"`
	}
	if err := json.NewDecoder(body).Decode(&page); err != nil {
		return nil, fmt.Errorf("as JSON: %w", err)
	}
	files := make([]File, 0, len(page.Files))
	for i := range page.Files {
		f := &page.Files[i]
		file, ok := newFile(base, f.URL)
		if !ok {
			continue
		}
		// A value of another type than PEP 691 says counts as missing.
		var hashes struct{ SHA256 string }
		if json.Unmarshal(f.Hashes, &hashes) == nil && file.SHA256 == "" {
			file.SHA256 = normalSHA256(hashes.SHA256)
		}
		_ = json.Unmarshal(f.RequiresPython, &file.RequiresPython)
		if json.Unmarshal(f.Yanked, &file.Yanked) != nil && json.Unmarshal(f.Yanked, &file.YankedReason) == nil {
			file.Yanked = file.YankedReason != "" // pip takes an empty string for not yanked, too
		}
		if json.Unmarshal(f.Size, &file.Size) != nil || file.Size < 0 || len(f.Size) == 0 {
			file.Size = -1
		}
		metadata := f.CoreMetadata // PEP 714: the new key has precedence over the old one
		if len(metadata) == 0 || string(metadata) == "null" {
			metadata = f.OldMetadata
		}
		file.Metadata = string(metadata) == "true" || bytes.HasPrefix(metadata, []byte("{"))
		files = append(files, file)
	}
	return files, nil
}

// parseHTMLPage reads a page in the HTML format of PEP 503.
func parseHTMLPage(base *url.URL, body io.Reader) ([]File, error) {
	var files []File
	hasBase := false
	tokens := html.NewTokenizer(body)
	tokens.SetMaxBuf(1 << 20) // bytes of one token
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if err := tokens.Err(); err != io.EOF { //nolint:errorlint // the tokenizer says it unwrapped
				return nil, fmt.Errorf("as HTML: %w", err)
			}
			return files, nil
		case html.StartTagToken, html.SelfClosingTagToken:
			name, hasAttributes := tokens.TagName()
			isBase := string(name) == "base"
			if !hasAttributes || !isBase && string(name) != "a" {
				continue
			}
			attributes := map[string]string{}
			for more := true; more; {
				var key, value []byte
				key, value, more = tokens.TagAttr()
				attributes[string(key)] = string(value)
			}
			if isBase {
				if u, err := base.Parse(attributes["href"]); err == nil && !hasBase {
					base, hasBase = u, true
				}
				continue
			}
			file, ok := newFile(base, attributes["href"])
			if !ok {
				continue
			}
			file.RequiresPython = attributes["data-requires-python"]
			file.YankedReason, file.Yanked = attributes["data-yanked"]
			metadata, ok := attributes["data-core-metadata"]
			if !ok {
				metadata, ok = attributes["data-dist-info-metadata"]
			}
			file.Metadata = ok && metadata != "false"
			files = append(files, file)
		default: // text and end tags
		}
	}
}

// newFile returns the File to which a page refers, and false when reference does not lead to an archive by http or https.
func newFile(base *url.URL, reference string) (File, bool) {
	if reference == "" {
		return File{}, false
	}
	u, err := base.Parse(strings.TrimSpace(reference))
	if err != nil || hostOf(u) == "" {
		return File{}, false
	}
	file := File{Name: baseName(u), Size: -1}
	if fragment, err := url.ParseQuery(u.Fragment); err == nil {
		file.SHA256 = normalSHA256(fragment.Get("sha256"))
	}
	u.Fragment, u.RawFragment, u.User = "", "", nil
	file.URL = u.String()
	_, isArchive := archiveStem(file.Name)
	return file, isArchive
}

// baseName returns the last part of a URL's path, which is the name of the file.
func baseName(u *url.URL) string { return path.Base(u.Path) }

// normalSHA256 returns a SHA-256 in lower-case hexadecimal, or "" when text is not one.
func normalSHA256(text string) string {
	if sum, err := hex.DecodeString(text); err != nil || len(sum) != 32 {
		return ""
	}
	return strings.ToLower(text)
}

// archiveStem returns a file's name without its ending, and whether that is one of an archive that pip can install from.
func archiveStem(name string) (string, bool) {
	for _, ending := range []string{".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar"} {
		if stem, ok := strings.CutSuffix(name, ending); ok && stem != "" {
			return stem, true
		}
	}
	return "", false
}

// projectFile sets Version, Wheel and Sdist from the file's name. It returns false when the file is not of the project, whose
// name must be canonical.
func (f *File) projectFile(project string) bool {
	stem, ok := archiveStem(f.Name)
	if !ok {
		return false
	}
	if f.Wheel = strings.HasSuffix(f.Name, ".whl"); f.Wheel {
		parts := strings.Split(stem, "-") // PEP 427: name, version, maybe a build, and three tags
		if len(parts) != 5 && len(parts) != 6 || Canonical(parts[0]) != project || parts[1] == "" {
			return false
		}
		f.Version = strings.ReplaceAll(parts[1], "_", "-")
		return true
	}
	f.Sdist = true
	for i := range stem { // the names of old files have hyphens in the project's name, too
		if stem[i] == '-' && i+1 < len(stem) && Canonical(stem[:i]) == project {
			f.Version = stem[i+1:]
			return true
		}
	}
	return false
}
