#!/usr/bin/env bash
# Make .venv hold exactly what requirements.lock names, and this checkout on top (editable).
# Does nothing when that is already so. PYTHON names another interpreter (3.11 or newer); UV another uv.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "setup: $*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.13 python3.12 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer${PYTHON:+ under the name $PYTHON}; install it (Debian: apt install python3.11) or set PYTHON"
}

# uv comes from the machine or, pinned by hash in the same lock, from a small environment of its own.
find_uv() {
    if [ -n "${UV:-}" ]; then echo "$UV"; return; fi
    if command -v uv; then return; fi
    if [ ! -x .uv-venv/bin/uv ]; then
        "$python" -c 'import ensurepip' 2>/dev/null || tools/need.sh "$python -c 'import ensurepip'" python3.11-venv >&2
        "$python" -m venv --clear .uv-venv >&2
        # The block of one package in the lock: its line and the indented lines that follow.
        awk '/^uv==/ {on = 1; print; next} /^[^ ]/ {on = 0} on && !/^ *#/ {print}' requirements.lock > .uv-venv/uv.lock
        .uv-venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .uv-venv/uv.lock >&2 ||
            die "could not install uv from the package index (see above); with uv on PATH this step is not needed"
    fi
    echo .uv-venv/bin/uv
}

python=$(find_python)
wanted=$(cat requirements.lock pyproject.toml | sha256sum; pwd; "$python" -c 'import sys; print(sys.version)')
stamp=.venv/setup-stamp
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

uv=$(find_uv)
.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || "$python" -m venv --clear --without-pip .venv
rm -f "$stamp"
echo "setup: installing what requirements.lock names into .venv"
export VIRTUAL_ENV="$PWD/.venv" UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
"$uv" pip sync --quiet --require-hashes requirements.lock
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
printf '%s\n' "$wanted" > "$stamp"
