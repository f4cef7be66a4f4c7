PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BIN := $(VENV)/bin
BENCHMARKS := $(sort $(wildcard benchmarks/bench_*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bundles

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## thick-slice a template brain, restore it, write NIfTI, PNG and figures to demo_output/
	$(BIN)/python -m monai_diffens.apps.demo --output_dir demo_output

test: $(VENV)/.installed  ## run the tests; PYTEST_ARGS="-m 'not slow'" for the quick ones
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## run every benchmarks/bench_*.py
	@test -n "$(BENCHMARKS)" || { echo "no benchmarks/bench_*.py here" >&2; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

bundles: $(VENV)/.demo  ## write a release zip of every bundle, and their SHA-256, to dist/
	$(BIN)/python -m monai_diffens pack bundles/* --output_dir dist

# Two stamps: what the demo needs, and on top of it what development needs.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@
