# make help lists the targets. PYTHON picks the interpreter .venv is made from (3.10 or newer).
PYTHON ?= python3
LOCK ?= cpu
STORAGE ?= runs
PORT ?= 5000
BIN := .venv/bin
THREE_AT_A_TIME := -n 3 --dist loadfile --no-loadscope-reorder --durations=10
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE  # .venv keeps what was compiled; without it each process compiles everything anew

.DEFAULT_GOAL := help
.PHONY: help setup dev demo ui pictures test test-fast faults lint lock lock-check dist gpu-check hooks clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed-$(LOCK)  ## make .venv and install what the commands need; LOCK=cuda: torch's CUDA build by its hash

dev: .venv/.dev-$(LOCK)  ## the same, and what the tests and linters need

# The lock file of CUDA has all that the other has, so what is installed by it is there for LOCK=cpu too.
.venv/.installed-$(LOCK): setup.cfg pyproject.toml infra/lock/requirements-$(LOCK).txt
	@infra/lock/install.sh "$(PYTHON)" $(LOCK)
	@touch .venv/.installed-cpu $@

.venv/.dev-$(LOCK): setup.cfg pyproject.toml infra/lock/requirements-$(LOCK).txt infra/lock/requirements-dev.txt
	@infra/lock/install.sh "$(PYTHON)" $(LOCK) dev
	@touch .venv/.installed-cpu .venv/.installed-$(LOCK) .venv/.dev-cpu $@

demo: setup  ## train three real clips through Ray and print the results table (2 to 4 minutes on two cores)
	$(BIN)/python jobs/train_corpus.py --corpus demo --preset demo --cpus-per-clip 2 --storage "$(STORAGE)"

ui: setup  ## MLflow on 127.0.0.1 over what demo produced
	$(BIN)/python jobs/ui.py --storage "$(STORAGE)" --port $(PORT)

pictures: dev  ## the pictures of README.md, of what demo produced; needs Debian's chromium and chromium-driver
	$(BIN)/python -m tests.pictures "$(STORAGE)"

test: dev  ## the whole test suite, three files at a time
	$(BIN)/python -m pytest $(THREE_AT_A_TIME)

test-fast: dev  ## the suite without the tests marked slow or faults, which it counts at the end
	$(BIN)/python -m pytest $(THREE_AT_A_TIME) -m "not slow and not faults"

faults: dev  ## the tests that break things on purpose, and a table of what was lost
	$(BIN)/python -m pytest -m faults

lint: dev  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: dev  ## write infra/lock/*.txt anew, after a change of setup.cfg
	UV=$(BIN)/uv infra/lock/lock.sh

lock-check: dev  ## whether infra/lock/*.txt are what setup.cfg asks for
	@UV=$(BIN)/uv infra/lock/lock.sh --check

dist: dev  ## the wheel and the source archive, into dist/
	$(BIN)/python -m build --outdir dist

gpu-check: setup  ## what a GPU does with this, in at most 10 minutes; for one machine that has one
	$(BIN)/python jobs/gpu_check.py

hooks: dev  ## have git run the linters before each commit
	$(BIN)/pre-commit install

clean:  ## remove .venv and caches; storage folders stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
