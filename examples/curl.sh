#!/bin/sh
# Run a program and print what it wrote: examples/curl.sh [URL]
curl --silent --show-error --fail-with-body "${1:-http://127.0.0.1:8001}/execute" \
	--json '{"code": "print(sum(range(10)))", "timeout": 10}' |
	python3 -c 'import json, sys; print(json.load(sys.stdin)["stdout"], end="")'
