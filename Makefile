# `make demo` and `make test` need only git, Python 3.11, make and a package index; each sets up what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# A folder called operator/ lies in this directory; keep it out of sys.path even without an __init__.py.
export PYTHONSAFEPATH := 1

# The control plane's tests need Go once, to build it; continuous integration may not do without.
CONTROL_PLANE := $(if $(filter true,$(CI)),controlplane,$(if $(shell command -v go 2>/dev/null),controlplane))

.PHONY: help setup demo test check fmt lock controlplane cluster-test bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup:  ## make .venv hold exactly what requirements.lock names
	@tools/setup.sh

demo: setup  ## run the main job on a simulated fleet; exits by itself
	@$(BIN)/fairlead demo $(ARGS)

test: setup check $(CONTROL_PLANE)  ## everything: the gates, then all tests (ARGS="-k name" narrows)
	@$(BIN)/python -m pytest $(ARGS)

check: setup  ## the gates: format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

fmt: setup  ## format, and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup  ## renew requirements.lock (ARGS=--upgrade takes newer versions)
	@env -u PIP_FIND_LINKS -u UV_FIND_LINKS UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet \
		--universal --fork-strategy fewest --generate-hashes --no-emit-index-url \
		--all-extras --group dev pyproject.toml -o requirements.lock $(ARGS)

controlplane: setup  ## build etcd, kube-apiserver, KWOK and friends once, into a cache outside the checkout
	@$(BIN)/python tests/cluster/controlplane/build.py

cluster-test: setup controlplane  ## only the tests against a real API server
	@$(BIN)/python -m pytest -m cluster $(ARGS)

bench: setup  ## measure (see docs/reference for what and how)
	@$(BIN)/fairlead bench $(ARGS)

clean:  ## remove what was made here (the control plane's cache lies elsewhere and stays)
	@rm -rf .venv .uv-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find scheduler operator tests migrations -name __pycache__ -prune -exec rm -rf {} +
