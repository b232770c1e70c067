# `make demo` and `make test` need only git, Python 3.11, make and a package index; each sets up what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# A folder called operator/ lies in this directory; keep it out of sys.path even without an __init__.py.
export PYTHONSAFEPATH := 1

# The control plane's tests need Go once, to build it; continuous integration may not do without it, nor PostgreSQL.
CONTROL_PLANE := $(if $(filter true,$(CI)),controlplane,$(if $(shell command -v go 2>/dev/null),controlplane))
POSTGRES := $(if $(filter true,$(CI)),postgres)

.PHONY: help setup demo test check mutants fmt lock postgres controlplane cluster-test bench-binding bench-openb bench-replay bench-waste bench-starvation bench-night bench-adversaries bench-ledger ledger-disorder ledger-tamper ledger-rewrite ledger-kills focus-check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup:  ## make .venv hold exactly what requirements.lock names
	@tools/setup.sh

demo: setup  ## run the main job on a simulated fleet; exits by itself
	@$(BIN)/fairlead demo $(ARGS)

test: setup check $(POSTGRES) $(CONTROL_PLANE)  ## everything: the gates, then all tests (ARGS="-k name" narrows)
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

postgres:  ## install PostgreSQL's server from Debian's packages where there is none
	@tools/need.sh 'command -v postgres || ls /usr/lib/postgresql/*/bin/postgres' postgresql

controlplane: setup  ## build etcd, kube-apiserver, KWOK and friends once, into a cache outside the checkout
	@$(BIN)/python tests/cluster/controlplane/build.py

cluster-test: setup controlplane  ## only the tests against a real API server
	@$(BIN)/python -m pytest -m cluster $(ARGS)

bench-binding: setup controlplane  ## pods bound per second on a real API server, beside the bare rate of the same writes
	@$(BIN)/python tests/cluster/bench_binding.py $(ARGS)

mutants: setup  ## a seeded sample of planted bugs in the ledger and quota modules (ARGS="--count 40 --minutes 20")
	@$(BIN)/python tests/mutants.py $(ARGS)

bench-starvation: setup  ## a large gang in a stream that never ends, 100 seeds (ARGS="--seeds 5 --json")
	@$(BIN)/fairlead bench starvation $(ARGS)

bench-waste: setup  ## work that preemption throws away, against the newest first (ARGS="--seeds 20 --json")
	@$(BIN)/fairlead bench waste $(ARGS)

bench-openb: setup  ## pack the public openb lists by our policy and the published ones (ARGS=--write renews the page)
	@$(BIN)/python tests/bench_openb.py $(ARGS)

bench-replay: setup  ## replay the public job traces by published rules and by ours (ARGS=--write renews the page)
	@$(BIN)/python tests/bench_replay.py $(ARGS)

bench-night: setup  ## batch by night, serving by day, for a month with summer time in it
	@$(BIN)/fairlead bench night --days 31 $(ARGS)

bench-adversaries: setup  ## what a tenant gains by cheating, a hundred runs of each way
	@$(BIN)/fairlead bench adversaries --runs 100 --hours 4 $(ARGS)

focus-check: setup  ## an export of FOCUS 1.2 through focus-validator, in its own .venv-focus (PYTHON312 names a Python 3.12)
	@PYTHONPATH=tests PYTHON312=$${PYTHON312:-python3.12} $(BIN)/python tests/focus_check.py

bench-ledger: setup postgres  ## the books on SQLite and PostgreSQL: entries a second, a report from 5 million
	@PYTHONPATH=tests $(BIN)/python tests/bench_ledger.py --entries 5000000 $(ARGS)

ledger-disorder: setup postgres  ## facts in every disorder: 1,000 seeds on SQLite and a replay, 50 of them on PostgreSQL
	@PYTHONPATH=tests $(BIN)/python tests/books_disorder.py 1000 50

ledger-tamper: setup  ## one row of a million is changed, removed or swapped: how long until verify names it
	@PYTHONPATH=tests $(BIN)/python tests/bench_tamper.py 1000000

ledger-rewrite: setup postgres  ## journal, entries and postings written anew at 5 million entries, on SQLite and PostgreSQL
	@PYTHONPATH=tests $(BIN)/python tests/bench_rewrite.py 5000000

ledger-kills: setup  ## kill -9 at each step of posting, twenty times
	@FAIRLEAD_EVERY_KILL=1 $(BIN)/python -m pytest -q tests/test_books_crash.py -k killed_anywhere $(ARGS)

clean:  ## remove what was made here (the control plane's cache lies elsewhere and stays)
	@rm -rf .venv .venv-focus .uv-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find scheduler operator tests migrations -name __pycache__ -prune -exec rm -rf {} +
