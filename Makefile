# The only commands a person needs: make run, make test, make bench, make fuzz, make lint, make build, make xcaddy.

SANDBOX_ADDRESS ?= 127.0.0.1:8001
SANDBOX_PYTHON  ?= python3
XCADDY_VERSION  := v0.4.5
export SANDBOX_ADDRESS SANDBOX_PYTHON

# The binary needs no C library. Only the race detector does, below.
export CGO_ENABLED := 0

GO_FILES     = $(shell find . -name '*.go' -not -path './.*' -not -path './bench/.venv/*')
PYTHON_FILES = $(shell find . -name '*.py' -not -path './.*' -not -path './bench/.venv/*')
SHELL_FILES  = $(shell find . -name '*.sh' -not -path './.*' -not -path './bench/.venv/*') .ci/run

.PHONY: run build test lint bench fuzz fidelity xcaddy clean need-go need-python need-cc

run: need-go need-python build ## build and serve on SANDBOX_ADDRESS
	@echo "Serving on http://$(SANDBOX_ADDRESS) (stop with Ctrl-C)"
	@exec bin/caddy run --config Caddyfile --adapter caddyfile

build: need-go ## write bin/caddy
	go build -trimpath -o bin/caddy ./cmd/caddy

# Timing is part of what is tested, so packages run one after the other.
test: need-go need-python need-cc .venv-tests/.stamp ## everything, end-to-end tests included
	CGO_ENABLED=1 go build -race ./...
	CGO_ENABLED=1 SANDBOX_TEST_PYTHON="$(CURDIR)/.venv-tests/bin/python" \
		go test -race -count 1 -p 1 -timeout 30m $(TESTFLAGS) ./...

# The clients that the end-to-end tests speak with.
.venv-tests/.stamp: tests/requirements.txt
	$(SANDBOX_PYTHON) -m venv .venv-tests
	.venv-tests/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@

lint: need-go need-python ## format, vet, staticcheck, go.mod, syntax of Python and shell
	@unformatted="$$(gofmt -l $(GO_FILES))" && test -z "$$unformatted" || \
		{ echo "gofmt would change: $$unformatted" >&2; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff
	@$(SANDBOX_PYTHON) -c 'import ast, sys; [ast.parse(open(f, "rb").read(), f) for f in sys.argv[1:]]' $(PYTHON_FILES)
	@for file in $(SHELL_FILES); do bash -n "$$file" || exit 1; done

bench: need-go need-python ## measure beside the baselines
	bench/run.sh

fidelity: need-go need-python build ## hold it against a plain Python: CPython's tests, common packages (MODULES, PACKAGES)
	MODULES="$(MODULES)" PACKAGES="$(PACKAGES)" tests/fidelity/run.sh

# Minimizing is off: what runs in several goroutines seldom takes the same way twice, and would be minimized for ever.
FUZZTIME ?= 600
FUZZPACKAGES ?= pool policy packages
fuzz: need-go ## fuzz all that is read from others, one target after the other, FUZZTIME seconds in all (FUZZPACKAGES)
	@targets="$$(for package in $(FUZZPACKAGES); do \
		go test -list '^Fuzz' "./$$package" | sed -n "s|^Fuzz|$$package Fuzz|p"; done)" && test -n "$$targets" && \
	seconds="$$(($(FUZZTIME) / $$(echo "$$targets" | wc -l)))" && \
	echo "$$targets" | while read -r package target; do \
		echo "--- $$package $$target" && go test "./$$package" -run '^$$' -fuzz "^$$target\$$" -fuzzminimizetime 1x \
			-fuzztime "$${seconds}s" || exit 1; done

# xcaddy asks for published versions even of what it replaces by a directory, and a proxy that refuses to answer ends it.
# So a proxy of ours answers first that this module has none.
MODULE = github.com/caddy-python-sandbox/caddy-python-sandbox
PROXY  = bin/.proxy

xcaddy: need-go need-python ## write bin/caddy-xcaddy as xcaddy.json says
	@mkdir -p $(PROXY)/$(MODULE)/@v $(PROXY)/$(MODULE)/caddymodule/@v
	@touch $(PROXY)/$(MODULE)/@v/list $(PROXY)/$(MODULE)/caddymodule/@v/list
	@args="$$($(SANDBOX_PYTHON) -c "$$XCADDY_ARGS")" && proxy="$$(go env GOPROXY)" && set -x && \
		GOPROXY="file://$(CURDIR)/$(PROXY),$$proxy" \
		go run github.com/caddyserver/xcaddy/cmd/xcaddy@$(XCADDY_VERSION) build $$args --output bin/caddy-xcaddy

# Turns the manifest into xcaddy's arguments.
define XCADDY_ARGS
import json
manifest = json.load(open("xcaddy.json"))
args = [manifest["caddy_version"]]
for module in manifest["modules"]:
    args += ["--with", module]
for module, path in manifest.get("replace", {}).items():
    args += ["--replace", module + "=" + path]
print(*args)
endef
export XCADDY_ARGS

clean: ## remove what the other commands made
	rm -rf bin .venv-tests .venv-fidelity bench/.venv bench/results.json tests/fidelity/results.json

need-go:
	@command -v go >/dev/null || { echo "Go is not installed: get Go 1.26 or later from https://go.dev/dl/ and put it on PATH." >&2; exit 1; }

need-python:
	@command -v "$(SANDBOX_PYTHON)" >/dev/null || { echo "$(SANDBOX_PYTHON) is not installed: install Python 3.10 or later, or name one with SANDBOX_PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(SANDBOX_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(SANDBOX_PYTHON) is too old or does not run: use Python 3.10 or later, or name one with SANDBOX_PYTHON=/path/to/python3." >&2; exit 1; }

need-cc:
	@command -v "$${CC:-cc}" >/dev/null || { echo "A C compiler is not installed: Go's race detector, which make test uses, needs one (such as the package gcc)." >&2; exit 1; }
