# The only commands a person needs: make run, make test, make bench, make fuzz, make lint, make build, make xcaddy.

SANDBOX_ADDRESS ?= 127.0.0.1:8001
SANDBOX_PYTHON  ?= python3
XCADDY_VERSION  := v0.4.5
export SANDBOX_ADDRESS SANDBOX_PYTHON

# The binary needs no C library. Only the race detector does, below.
export CGO_ENABLED := 0

PYTHON_FILES = $(shell find . -name '*.py' -not -path './.*' -not -path './bench/.venv/*')
SHELL_FILES  = $(shell find . -name '*.sh' -not -path './.*' -not -path './bench/.venv/*') .ci/run

.PHONY: run build test prepare lint bench fuzz fidelity xcaddy docs-assets clean need-place need-go need-python need-cc want-browser

run: need-go need-python build ## build and serve on SANDBOX_ADDRESS
	@echo "Serving on http://$(SANDBOX_ADDRESS) (stop with Ctrl-C)"
	@exec bin/caddy run --config Caddyfile --adapter caddyfile

build: need-go ## write bin/caddy
	go build -trimpath -o bin/caddy ./cmd/caddy

# Programs do not see the host's /tmp, so an interpreter for them cannot be there: that of the tests is elsewhere when this checkout is.
HIDDEN_PLACES = /tmp/% /var/tmp/%
ifeq ($(filter $(HIDDEN_PLACES),$(CURDIR)/),)
TEST_VENV = $(CURDIR)/.venv-tests
else
TEST_VENV = $(HOME)/.cache/caddy-python-sandbox/tests-$(shell cat tests/requirements*.txt | cksum | cut -d' ' -f1)
endif

# Most of tests/ runs programs and waits for them, and bounds of time there stretch with what else the machine does, so two packages run at
# once. asfound fails when they leave the machine otherwise than they found it. go vet is part of make lint. Without the symbols that only
# debuggers read, each test program is linked in two thirds of the time.
test: prepare ## everything, end-to-end tests included
	CGO_ENABLED=1 go build -race ./...
	CGO_ENABLED=1 SANDBOX_TEST_PYTHON="$(TEST_VENV)/bin/python" go run ./tests/asfound \
		go test -race -vet off -ldflags "-s -w" -count 1 -p 2 -timeout 30m $(TESTFLAGS) ./...

prepare: need-place need-go need-python need-cc want-browser $(TEST_VENV)/.stamp .node-tests/.stamp ## install what the tests need

# The clients that the end-to-end tests speak with.
$(TEST_VENV)/.stamp: tests/requirements.txt tests/requirements-mcp2.txt tests/requirements-reports.txt
	$(SANDBOX_PYTHON) -m venv "$(TEST_VENV)"
	"$(TEST_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	"$(TEST_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements-mcp2.txt \
		--upgrade --target "$(TEST_VENV)/mcp2"
	"$(TEST_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements-reports.txt \
		--upgrade --target "$(TEST_VENV)/reports"
	@touch $@

# Those for Node, with the Node that they run on. Without npm the tests that need them are skipped.
.node-tests/.stamp: tests/node/package.json tests/node/package-lock.json
	@command -v npm >/dev/null || { echo "npm is not installed: tests that need MCP clients for Node will not run." >&2; exit 0; }; \
		set -ex; mkdir -p .node-tests; cp $^ .node-tests/; npm ci --prefix .node-tests --ignore-scripts --no-audit --no-fund --loglevel error; touch $@

# The browser that the tests open /docs with. Without it, and without the right to install it, they are skipped.
want-browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "chromium could not be installed: tests that need a browser will not run." >&2

# golangci-lint is built from source the first time, a minute and a half of one processor, and kept in Go's cache. Its dependencies are in
# a module of their own, so that none of them is one of the product's.
lint: need-go need-python ## .golangci.yml (vet, staticcheck, format and more), go.mod, syntax of Python and shell
	go tool -modfile=tools/go.mod golangci-lint run ./...
	go mod tidy -diff
	@$(SANDBOX_PYTHON) -c 'import ast, sys; [ast.parse(open(f, "rb").read(), f) for f in sys.argv[1:]]' $(PYTHON_FILES)
	@for file in $(SHELL_FILES); do bash -n "$$file" || exit 1; done

bench: need-go need-python build ## measure beside the baselines
	bench/run.sh

fidelity: need-go need-python build ## hold it against a plain Python: CPython's tests, common packages (MODULES, PACKAGES)
	MODULES="$(MODULES)" PACKAGES="$(PACKAGES)" tests/fidelity/run.sh

# Minimizing is off: what runs in several goroutines seldom takes the same way twice, and would be minimized for ever.
FUZZTIME ?= 600
FUZZPACKAGES ?= pool policy packages internal/pep440
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

DOCS = caddymodule/internal/api/docspage
docs-assets: ## copy Swagger UI from npm as caddymodule/internal/api/docspage/package-lock.json pins it
	rm -rf bin/.docs && mkdir -p bin/.docs && cp $(DOCS)/package.json $(DOCS)/package-lock.json bin/.docs/
	npm ci --prefix bin/.docs --ignore-scripts --no-audit --no-fund
	@cd bin/.docs/node_modules/swagger-ui-dist && for file in swagger-ui-bundle.js swagger-ui.css; do \
		gzip -9 -n -c "$$file" > "$(CURDIR)/$(DOCS)/$$file.gz" || exit 1; done && \
		cat NOTICE LICENSE > "$(CURDIR)/$(DOCS)/swagger-ui.LICENSE.txt" && \
		cp swagger-ui-bundle.js.LICENSE.txt "$(CURDIR)/$(DOCS)/"

clean: ## remove what the other commands made
	rm -rf bin .venv-tests .node-tests .venv-fidelity bench/.venv bench/results.json tests/fidelity/results.json

need-place:
	@test -z "$(filter $(HIDDEN_PLACES),$(TEST_VENV)/)" || { echo "The checkout and the home directory are both under /tmp, which programs in the sandbox do not see: the tests have no place for an interpreter. Name one: make test TEST_VENV=/path/to/a/directory" >&2; exit 1; }
	@case "$(CURDIR)$(TEST_VENV)" in *[[:space:]]*) echo "make test cannot handle blanks in paths: move the checkout." >&2; exit 1;; esac

need-go:
	@command -v go >/dev/null || { echo "Go is not installed: get Go 1.26 or later from https://go.dev/dl/ and put it on PATH." >&2; exit 1; }

need-python:
	@command -v "$(SANDBOX_PYTHON)" >/dev/null || { echo "$(SANDBOX_PYTHON) is not installed: install Python 3.10 or later, or name one with SANDBOX_PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(SANDBOX_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(SANDBOX_PYTHON) is too old or does not run: use Python 3.10 or later, or name one with SANDBOX_PYTHON=/path/to/python3." >&2; exit 1; }

need-cc:
	@command -v "$${CC:-cc}" >/dev/null || { echo "A C compiler is not installed: Go's race detector, which make test uses, needs one (such as the package gcc)." >&2; exit 1; }
