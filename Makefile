# Works with GNU make 3.81 and later. Every target sets up what it needs, so each can be the first command ever run.
PY := .venv/bin/python
STACK ?= dev
# So many tests run at the same time, on as many sets of services.
TESTERS ?= 3
TOGETHER := -n $(TESTERS) --dist worksteal
DEVSTACK := $(PY) -m devstack --name $(STACK)

.DEFAULT_GOAL := help
.PHONY: help setup demo unit test check up down status load env chaos guards bench audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {gsub(/\$$\$$/, "$$", $$2); printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is passed on by unit, test, check, chaos, guards and bench; STACK=name picks another stack than "dev";'
	@echo '  PYTHON=path picks the interpreter that .venv is made with.'

setup: ## Make .venv with everything in requirements-dev.txt (done by the others when needed)
	@sh scripts/setup.sh >&2

demo: setup ## Start everything, run one job through the worker, show what came out (ARGS=--serve: as a page, too)
	@$(PY) -m scripts.demo $(ARGS)

unit: setup ## Run the tests that need no service
	@$(PY) -m pytest tests/unit -q $(ARGS)

test: setup ## Run every test but the minutes of faults
	@$(PY) -m pytest -m "not faults" $(TOGETHER) $(ARGS)

check: setup ## Lint, format, types and import rules, then every test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) -m pytest $(TOGETHER) $(ARGS)

up: setup ## Start the local services that are not running, and wait until each answers
	@$(DEVSTACK) up

down: setup ## Stop the local services; their data stays
	@$(DEVSTACK) down

status: setup ## Show the local services
	@$(DEVSTACK) status

load: setup ## Load a small family of aligned texts, root-bo among them, into the local graph
	@$(DEVSTACK) load

env: setup ## Print the environment of the local services, for: eval "$$(make -s env)"
	@$(DEVSTACK) env

chaos: setup ## Break things while jobs run, and check that nothing is lost
	@$(PY) -m tests.chaos $(ARGS)

guards: setup ## Take each guard out of a copy of the code, one at a time, and see its test fail
	@$(PY) -m tests.guards $(ARGS)

bench: setup ## Measure
	@$(PY) -m bench $(ARGS)

audit: setup ## Look for known vulnerabilities in what the worker installs
	@.venv/bin/pip-audit -r requirements.txt -r requirements-api.txt

clean: ## Stop every stack of this checkout, then delete .venv, .devstack and caches
	@sh scripts/clean.sh
