# Sets up the environment and runs the pipeline, on a machine with nothing but Python, git and make.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# Stages call `python`, which must be the environment's.
export PATH := $(BIN):$(PATH)

.PHONY: repro test lint setup

repro: setup  ## the whole pipeline: whatever changed, and only that
	dvc repro

test: setup  ## the test suite
	python -m pytest

lint: setup  ## what CI checks beside the tests
	ruff check .
	ruff format --check .
	mypy

setup: $(VENV)/installed  ## the environment, once for each requirements.lock

$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) \
	else f"error: {sys.executable} is Python {v[0]}.{v[1]}, expected 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@
