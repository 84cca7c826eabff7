#!/bin/sh
# Deletes what can be made again. The servers go first: one whose files are gone could not be found or stopped any more.
set -eu
cd "$(dirname "$0")/.."
set -- .devstack/*/state.json
if [ -e "$1" ]; then
    if ! .venv/bin/python -c 'import devstack' 2>/dev/null; then
        echo "clean: .devstack may have servers running and .venv cannot stop them: run 'make setup' first" >&2
        exit 1
    fi
    .venv/bin/python -m devstack down --all
fi
rm -rf .devstack .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
find . -name __pycache__ -type d -prune -exec rm -rf {} +
echo "clean: done"
