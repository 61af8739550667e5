# Everything runs from .venv, which the first command makes.

.DEFAULT_GOAL := help
.PHONY: help demo up test lint bench clean chromium

BIN := .venv/bin
# The first Python that is new enough and brings venv and pip.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo "$$python" && break; done)

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: .venv/.demo ## import a bucket through Airflow, show what came of it, stop everything
	@$(BIN)/python -m demo

up: .venv/.demo ## the same, and keep Airflow and the bucket running until Ctrl-C
	@$(BIN)/python -m demo --stay

test: lint chromium ## lint, and run all tests
	$(BIN)/pytest -n 2

lint: .venv/.dev ## style, types and the layers of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev ## ratios against baselines, measured in the same run
	$(BIN)/python -m benchmarks

clean: ## remove the environment and what the commands left behind
	rm -rf .venv .demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist

# The proxy's tests in a real browser skip where there is none and only root could install it.
INSTALL_CHROMIUM := DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	--no-install-recommends chromium >/dev/null 2>&1
chromium:
	@if ! command -v chromium && command -v apt-get && test "$$(id -u)" = 0; then \
		echo "installing Chromium, for tests in a real browser …" >&2; \
		$(INSTALL_CHROMIUM) || { apt-get -qq update && $(INSTALL_CHROMIUM); } \
		|| echo "Chromium could not be installed: the tests in a real browser will skip" >&2; \
	fi >/dev/null

# What is installed is written down in .venv/.demo and .venv/.dev; a new pyproject.toml renews it.
.venv/.%: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Labelport needs Python 3.11 or newer with venv and pip \
	(on Debian: apt install python3-venv). Another one: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what 'make $*' needs into .venv …"
	@$(BIN)/python -m pip install -qq uv \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$*]' \
		|| $(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
