#!/bin/sh
# Hold the sandbox against a plain Python: see README.md. MODULES and PACKAGES name what is run; without them, everything.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..
python=${SANDBOX_PYTHON:-python3}
venv=$root/.venv-fidelity
stamp=$venv/.stamp
failed=0

if [ -n "${MODULES:-}" ] || [ -z "${PACKAGES:-}" ]; then
	# shellcheck disable=SC2086 # a list of words
	"$python" "$here/run.py" --python "$python" ${MODULES:-} || failed=1
fi

if [ -n "${PACKAGES:-}" ] || [ -z "${MODULES:-}" ]; then
	# A new interpreter or new pins make a new environment.
	want=$("$python" -c 'import platform, sys; print(platform.python_version(), sys.base_prefix)'; cat "$here/requirements.txt")
	if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
		rm -rf "$venv"
		"$python" -m venv "$venv"
		"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
		printf '%s\n' "$want" >"$stamp"
	fi
	# shellcheck disable=SC2086
	"$venv/bin/python" "$here/sweep.py" ${PACKAGES:-} || failed=1
fi

exit "$failed"
