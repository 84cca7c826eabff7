#!/bin/sh
# Makes .venv and keeps it in step with the requirement files. The stamp is written last, so a venv without one is
# half made and is made anew; it holds what the venv was made from, so an unchanged one is left alone.
set -eu
cd "$(dirname "$0")/.."
STAMP=.venv/made-from
LOCK=.devstack/setup-lock

made_from() {
    pwd # a venv does not survive being moved
    cat requirements*.txt devstack/requirements.txt | cksum
}

ready() {
    [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(made_from)" ] && .venv/bin/python -c '' 2>/dev/null
}

take_lock() {
    waited=
    mkdir -p .devstack
    while ! mkdir "$LOCK" 2>/dev/null; do
        if ! kill -0 "$(cat "$LOCK/pid" 2>/dev/null || echo 0)" 2>/dev/null; then
            sleep 1 # its owner may be about to write its pid
            kill -0 "$(cat "$LOCK/pid" 2>/dev/null || echo none)" 2>/dev/null || rm -rf "$LOCK"
            continue
        fi
        [ -n "$waited" ] || echo "setup: waiting for another setup to finish ..."
        waited=yes
        sleep 1
    done
    echo $$ >"$LOCK/pid"
    trap 'rm -rf "$LOCK"' EXIT
    trap 'exit 130' INT TERM
}

suits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info < (3, 15))'
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" && echo "$PYTHON" && return
        echo "setup: PYTHON=$PYTHON is not a Python from 3.12 to 3.14 with the venv module" >&2
        return 1
    fi
    uv_python=$(uv python find --no-python-downloads '>=3.12,<3.15' 2>/dev/null || true)
    for candidate in python3.12 python3.13 python3.14 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-4]*/bin/python "$uv_python" \
        "$HOME"/.local/share/uv/python/cpython-3.1[2-4]*/bin/python3 \
        /opt/homebrew/bin/python3.1[2-4] /usr/local/bin/python3.1[2-4] \
        /Library/Frameworks/Python.framework/Versions/3.1[2-4]/bin/python3; do
        [ -n "$candidate" ] && suits "$candidate" 2>/dev/null && echo "$candidate" && return
    done
    cat >&2 <<'HELP'
setup: no Python from 3.12 to 3.14 was found. Get one, for example with one of
    uv python install 3.12
    pyenv install 3.12
    sudo apt install python3.12 python3.12-venv
    brew install python@3.12
or name one that you have:
    make setup PYTHON=/path/to/python3.12
HELP
    return 1
}

ready && exit
take_lock
ready && exit
if ! { [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" = "$(pwd)" ] && .venv/bin/python -c '' 2>/dev/null; }; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version) ($python)"
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "setup: installing requirements-dev.txt (a minute or two the first time)"
rm -f "$STAMP"
made_from >.venv/making-from
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
mv .venv/making-from "$STAMP"
echo "setup: done"
