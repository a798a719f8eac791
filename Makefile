# Archwright. `make` lists what can be made; python3 (3.11 or newer, with venv) is all it needs.

UV_VERSION := 0.13.9

BIN := .venv/bin
UV := $(BIN)/uv
INSTALL_UV := $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
PIP_INSTALL := $(UV) pip install --quiet --python $(BIN)/python --no-deps
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --generate-hashes --no-header

# What is installed, as stamps: nothing is done again until a lock or pyproject.toml changes.
READY := .venv/.ready
READY_DEV := .venv/.ready-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run demo test test-long bench bench-streaming bench-retrieval bench-citations lint format lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Set .venv up from requirements.lock

run: $(READY) ## Start the service, everything embedded, on http://127.0.0.1:8000
	@exec $(BIN)/archwright serve

demo: $(READY) ## Ask and draft with the sample documents, in a scratch data folder
	@exec $(BIN)/archwright demo

# More workers than cores: many tests wait for a process or a deadline.
test: $(READY_DEV) ## Run the whole test suite
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# One after the other, with nothing beside them: they measure times.
test-long: $(READY_DEV) ## Run the tests of cuts, crashes, races, growth and soaking in large numbers (an hour)
	CUTS=200 $(BIN)/python -m pytest -s tests/test_cuts.py
	ROUNDS=30 $(BIN)/python -m pytest -s tests/test_races.py
	FROZEN_S=20 $(BIN)/python -m pytest -s tests/test_database_faults.py
	ROUNDS=5 $(BIN)/python -m pytest -s tests/test_replicas.py
	TURNS=500 $(BIN)/python -m pytest -s tests/test_growth.py
	KILLS=20 $(BIN)/python -m pytest -s tests/test_killed.py
	SOAK_S=1800 $(BIN)/python -m pytest -s tests/test_soak.py

bench: $(READY_DEV) ## Print the performance tables
	$(BIN)/python -m bench.streaming
	$(BIN)/python -m bench.first_token
	$(BIN)/python -m bench.checks
	$(BIN)/python -m bench.access
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.many_conversations
	$(BIN)/python -m bench.many_chunks

bench-streaming: $(READY_DEV) ## Measure the streams beside their peers, and write docs/performance.md
	$(BIN)/python -m bench.streaming --write docs

bench-retrieval: $(READY_DEV) ## Print how well and how fast passages are found
	$(BIN)/python -m bench.retrieval
	$(BIN)/python -m bench.ingestion
	$(BIN)/python -m bench.search_time

bench-citations: $(READY_DEV) ## Print precision and recall of the citations that the service makes
	$(BIN)/python -m bench.citations

lint: $(READY_DEV) ## Check style, types, YAML and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@files=$$(find . -name '.venv' -prune -o \( -name '*.yaml' -o -name '*.yml' \) -print); \
	if [ -n "$$files" ]; then set -x; $(BIN)/yamllint --strict $$files; fi
	@if [ -e Dockerfile ]; then set -x; $(BIN)/hadolint Dockerfile; fi

format: $(READY_DEV) ## Bring the code into its form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The larger one first: what the development tools ask for must hold for the service too.
lock: $(BIN)/python ## Write both lock files anew (LOCK=--upgrade takes newer versions)
	@$(INSTALL_UV)
	$(COMPILE) $(LOCK) --group build --group dev -o requirements-dev.lock
	$(COMPILE) $(LOCK) --group build -c requirements-dev.lock -o requirements.lock

$(READY): requirements.lock pyproject.toml $(BIN)/python
	@echo "Setting up .venv…"
	@$(INSTALL_UV)
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-build-isolation -e .
	@touch $@

$(READY_DEV): requirements-dev.lock $(READY)
	@echo "Adding what tests and checks need…"
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(BIN)/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Archwright needs Python 3.11 or newer.")'
	@python3 -m venv --clear .venv
