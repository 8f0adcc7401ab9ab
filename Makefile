# make help lists the targets. PYTHON picks the interpreter .venv is made from (3.10 or newer).
PYTHON ?= python3
STORAGE ?= runs
PORT ?= 5000
BIN := .venv/bin
THREE_AT_A_TIME := -n 3 --dist loadfile --no-loadscope-reorder --durations=10
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo ui pictures test test-fast faults lint hooks clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed  ## make .venv and install everything into it

.venv/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, $(PYTHON) is older; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,s3]'
	@touch $@

demo: setup  ## train three real clips through Ray and print the results table (about 4 minutes on two cores)
	$(BIN)/python jobs/train_corpus.py --corpus demo --preset demo --cpus-per-clip 2 --storage "$(STORAGE)"

ui: setup  ## MLflow on 127.0.0.1 over what demo produced
	$(BIN)/python jobs/ui.py --storage "$(STORAGE)" --port $(PORT)

pictures: setup  ## the pictures of README.md, of what demo produced; needs Debian's chromium and chromium-driver
	$(BIN)/python -m tests.pictures "$(STORAGE)"

test: setup  ## the whole test suite, three files at a time
	$(BIN)/python -m pytest $(THREE_AT_A_TIME)

test-fast: setup  ## the suite without the tests marked slow or faults, which it counts at the end
	$(BIN)/python -m pytest $(THREE_AT_A_TIME) -m "not slow and not faults"

faults: setup  ## the tests that break things on purpose, and a table of what was lost
	$(BIN)/python -m pytest -m faults

lint: setup  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

hooks: setup  ## have git run the linters before each commit
	$(BIN)/pre-commit install

clean:  ## remove .venv and caches; storage folders stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
