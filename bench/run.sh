#!/bin/sh
# Measure the sandbox beside its baselines: see README.md. Arguments go to run.py.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${SANDBOX_PYTHON:-python3}
venv=$here/.venv
stamp=$venv/.stamp

# A new interpreter or new pins make a new environment.
want=$("$python" -c 'import platform, sys; print(platform.python_version(), sys.base_prefix)'; cat "$here/requirements.txt")
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
	printf '%s\n' "$want" >"$stamp"
fi

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
(cd "$here/.." && go build -o "$built/load" ./bench/load)

"$venv/bin/python" "$here/run.py" --python "$venv/bin/python" --load "$built/load" "$@"
