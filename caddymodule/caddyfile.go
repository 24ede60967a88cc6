package caddymodule

import (
	"math"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("python_sandbox", parseDirective)
	// Before respond rather than before reverse_proxy: a site's catch-all respond would win otherwise.
	httpcaddyfile.RegisterDirectiveOrder("python_sandbox", httpcaddyfile.Before, "respond")
}

func parseDirective(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens:
//
//	python_sandbox [<matcher>] {
//	    python      <path or name>
//	    preload     <modules...>
//	    python_path <directories...>
//	    workers {
//	        idle            <count>
//	        max             <count>
//	        queue           <count>
//	        acquire_timeout <duration>
//	        templates       <count>
//	        shutdown_grace  <duration>
//	    }
//	    limits {
//	        execute_timeout <default> [<maximum>]
//	        memory          <size>
//	        processes       <count>
//	        output          <characters>
//	        output_kill     <size>
//	        scratch         <size>
//	        open_files      <count>
//	        request_body    <size>
//	        request_bodies  <size>
//	        body_timeout    <duration>
//	    }
//	    isolation strict|best_effort|none
//	    packages {
//	        index           <address>
//	        hosts           <hosts...>
//	        block           <names...>
//	        allow           <names...>
//	        trust           <names...>
//	        sdist           deny|allow
//	        max_download    <size>
//	        max_installed   <size>
//	        rate            <count> <duration>
//	        install_timeout <duration>
//	        data_dir        <directory>
//	    }
//	    packages  off
//	    mcp       off
//	    docs      off
//	    jupyter   on|off
//	    jupyter {
//	        token <secret>
//	    }
//	    hosts     <names...>
//	}
//
// Every word may be left out and stands at most once. Modules, names and directories are separated by spaces or commas,
// directories also by colons, as in PYTHONPATH; python_path may be empty, which is the same as leaving it out. Sizes are bytes
// or carry a unit, such as 512MiB.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		return d.Errf("python_sandbox takes no %q on its own line: put settings in a block", d.Val())
	}
	return h.block(d, "", map[string]parser{
		"python":      stringParser(&h.Python),
		"preload":     listParser(&h.Preload, ", "),
		"python_path": listParser(&h.PythonPath, ",:"),
		"workers":     h.parseWorkers,
		"limits":      h.parseLimits,
		"isolation":   choiceParser(&h.Isolation, "strict", "best_effort", "none"),
		"packages":    h.parsePackages,
		"mcp":         offParser(&h.MCP),
		"docs":        offParser(&h.Docs),
		"jupyter":     h.parseJupyter,
		"hosts":       listParser(&h.Hosts, ", "),
	})
}

func (h *Handler) parseWorkers(d *caddyfile.Dispenser, word string) error {
	if d.NextArg() {
		return d.Errf("%s takes a block, not %q", word, d.Val())
	}
	return h.block(d, word+" ", map[string]parser{
		"idle":            countParser(&h.Workers.Idle),
		"max":             countParser(&h.Workers.Max),
		"queue":           countParser(&h.Workers.Queue),
		"acquire_timeout": durationParser(&h.Workers.AcquireTimeout),
		"templates":       countParser(&h.Workers.Templates),
		"shutdown_grace":  durationParser(&h.Workers.ShutdownGrace),
	})
}

func (h *Handler) parseLimits(d *caddyfile.Dispenser, word string) error {
	if d.NextArg() {
		return d.Errf("%s takes a block, not %q", word, d.Val())
	}
	return h.block(d, word+" ", map[string]parser{
		"execute_timeout": durationParser(&h.Limits.ExecuteTimeout, &h.Limits.ExecuteTimeoutMax),
		"memory":          sizeParser(&h.Limits.Memory),
		"processes":       countParser(&h.Limits.Processes),
		"output":          countParser(&h.Limits.Output),
		"output_kill":     sizeParser(&h.Limits.OutputKill),
		"scratch":         sizeParser(&h.Limits.Scratch),
		"open_files":      countParser(&h.Limits.OpenFiles),
		"request_body":    sizeParser(&h.Limits.RequestBody),
		"request_bodies":  sizeParser(&h.Limits.RequestBodies),
		"body_timeout":    durationParser(&h.Limits.BodyTimeout),
	})
}

// parser parses what follows a word. word is its full name for messages, such as "workers idle".
type parser func(d *caddyfile.Dispenser, word string) error

// block parses the block that opens next in d, with one parser for each word that is known there.
func (*Handler) block(d *caddyfile.Dispenser, prefix string, words map[string]parser) error {
	seen := map[string]int{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word, line := d.Val(), d.Line()
		parse, known := words[word]
		if !known {
			return d.Errf("unknown word %s%s", prefix, word)
		}
		if before, again := seen[word]; again {
			return d.Errf("%s%s is set again: it is set on line %d already", prefix, word, before)
		}
		seen[word] = line
		if err := parse(d, prefix+word); err != nil {
			return err
		}
	}
	return nil
}

func stringParser(field *string) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		value, err := one(d, word)
		*field = value
		return err
	}
}

func choiceParser(field *string, choices ...string) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		value, err := one(d, word)
		if err != nil {
			return err
		}
		for _, choice := range choices {
			if value == choice {
				*field = value
				return nil
			}
		}
		return d.Errf("%s %q is unknown: use %s", word, value, strings.Join(choices, ", "))
	}
}

// listParser takes any number of arguments, which it also splits at each of separators.
func listParser(field *[]string, separators string) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		for _, arg := range d.RemainingArgs() {
			*field = append(*field, strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(separators, r) })...)
		}
		return noBlock(d, word)
	}
}

func countParser(field *int) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		value, err := one(d, word)
		if err != nil {
			return err
		}
		*field, err = parseCount(d, word, value)
		return err
	}
}

func parseCount(d *caddyfile.Dispenser, word, value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, d.Errf("%s %q is no count: use a whole number, 1 or more", word, value)
	}
	return n, nil
}

func sizeParser(field *int64) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		value, err := one(d, word)
		if err != nil {
			return err
		}
		n, err := humanize.ParseBytes(value)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return d.Errf("%s %q is no size: use a number with a unit, such as 512MiB", word, value)
		}
		*field = int64(n)
		return nil
	}
}

// durationParser takes one duration for each field; all but the first may be left out.
func durationParser(fields ...*caddy.Duration) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > len(fields) {
			return d.Errf("%s takes 1 to %d durations, and %d are given", word, len(fields), len(args))
		}
		for i, arg := range args {
			value, err := caddy.ParseDuration(arg)
			if err != nil || value <= 0 {
				return d.Errf("%s %q is no duration: use a number with a unit, such as 30s", word, arg)
			}
			*fields[i] = caddy.Duration(value)
		}
		return noBlock(d, word)
	}
}

// one takes the one argument of a word.
func one(d *caddyfile.Dispenser, word string) (string, error) {
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return "", d.Errf("%s takes one value, and %d are given", word, len(args))
	}
	return args[0], noBlock(d, word)
}

// offParser switches off a part that is on.
func offParser(field **bool) parser {
	return func(d *caddyfile.Dispenser, word string) error {
		err := off(d, word)
		if err == nil {
			*field = new(bool)
		}
		return err
	}
}

// off takes the argument of a part that can only be switched off.
func off(d *caddyfile.Dispenser, word string) error {
	value, err := one(d, word)
	if err == nil && value != "off" {
		err = d.Errf("%s %q is unknown: use %s off, or leave the word out", word, value, word)
	}
	return err
}

// noBlock refuses a block behind a word that has none.
func noBlock(d *caddyfile.Dispenser, word string) error {
	if d.NextBlock(d.Nesting()) {
		return d.Errf("%s takes no block", word)
	}
	return nil
}
