package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// foundHandler is a python_sandbox of a configuration. where has its path there, or several paths when their settings are equal.
type foundHandler struct {
	handler *Handler
	where   []string
}

// handlersToCheck returns the handlers of a configuration file, or one without settings when there is no file.
func handlersToCheck(file, adapter string) ([]*foundHandler, error) {
	if file == "" {
		if adapter != "" {
			return nil, errors.New("--adapter says how to read --config, which is missing: give both, or neither")
		}
		return []*foundHandler{{handler: new(Handler)}}, nil
	}
	config, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err //nolint:wrapcheck // Caddy's own sentence
	}
	found, err := findHandlers(config)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no python_sandbox: add the directive to a site, or leave --config out to check the defaults", file)
	}
	return found, err
}

// findHandlers returns every python_sandbox in a configuration, however deeply nested, in the order in which they stand there.
func findHandlers(config []byte) ([]*foundHandler, error) {
	if len(config) == 0 {
		return nil, nil
	}
	var found []*foundHandler
	equal := map[string]*foundHandler{}
	var walk func(raw json.RawMessage, path string) error
	walk = func(raw json.RawMessage, path string) error {
		children, own, err := unfold(raw)
		if err != nil {
			return fmt.Errorf("the configuration is no valid JSON at %q: %w", path, err)
		}
		if own != nil {
			h := new(Handler)
			if err := caddy.StrictUnmarshalJSON(own, h); err != nil {
				return fmt.Errorf("the python_sandbox at %s: %w", path, err)
			}
			settings, err := json.Marshal(h)
			if err != nil {
				return fmt.Errorf("encoding the settings of the handler: %w", err)
			}
			f := equal[string(settings)]
			if f == nil {
				f = &foundHandler{handler: h}
				equal[string(settings)] = f
				found = append(found, f)
			}
			f.where = append(f.where, path)
			return nil
		}
		for _, child := range children {
			if err := walk(child.raw, strings.TrimPrefix(path+"/"+child.name, "/")); err != nil {
				return err
			}
		}
		return nil
	}
	return found, walk(config, "")
}

// member is one member of a JSON object or array.
type member struct {
	name string
	raw  json.RawMessage
}

// unfold returns the members of a JSON object or array, in their order. When the object is a python_sandbox it returns that
// instead, without the member "handler".
func unfold(raw json.RawMessage) (children []member, sandbox json.RawMessage, err error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	begin, err := decoder.Token()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // by the caller
	}
	delimiter, ok := begin.(json.Delim)
	if !ok {
		return nil, nil, nil
	}
	isOurs := false
	for i := 0; decoder.More(); i++ {
		m := member{name: strconv.Itoa(i)}
		if delimiter == '{' {
			name, err := decoder.Token()
			if err != nil {
				return nil, nil, err //nolint:wrapcheck // likewise
			}
			m.name = name.(string)
		}
		if err := decoder.Decode(&m.raw); err != nil {
			return nil, nil, err //nolint:wrapcheck // likewise
		}
		if delimiter == '{' && m.name == "handler" && string(m.raw) == `"python_sandbox"` {
			isOurs = true
			continue
		}
		children = append(children, m)
	}
	if !isOurs {
		return children, nil, nil
	}
	fields := make(map[string]json.RawMessage, len(children))
	for _, m := range children {
		fields[m.name] = m.raw
	}
	sandbox, err = json.Marshal(fields)
	return nil, sandbox, err //nolint:wrapcheck // likewise
}
