# Sets up the environment and runs the pipeline, on a machine with nothing but Python, git and make.
#
#   make repro                     the whole pipeline: whatever changed, and only that
#   make test                      the test suite
#   make fuzz SECONDS=60           damaged models, scans and DICOM files for a minute each
#   make lint                      what CI checks beside the tests
#   make table                     the experiments, in columns that fit a terminal
#   make environment               after an upgrade by hand: versions that results depend on
#   make report BASE=main          what a pull request is told: HEAD against main, in report/
#   make verify                    the pipeline twice for each model and recipe: the same bytes?
#   make verify EPOCHS=1           the same, for people in a hurry
#   make repro PYTHON=python3.12   with a certain Python, where .venv does not stand yet
#   make repro GPU=1               with TensorFlow for NVIDIA GPUs (Linux), in .venv-gpu

PYTHON ?= python3
BASE ?= main
SECONDS ?= 60
SEED ?= 0
FUZZED := models metaimage dicom
# What a person or a branch name brings is text. Make would expand a $(shell ...) in it, and a shell
# a quote, so make takes it as it stands and recipes read it from the environment.
override BASE := $(value BASE)
override EPOCHS := $(value EPOCHS)
override GPU := $(value GPU)
override PYTHON := $(value PYTHON)
export BASE EPOCHS PYTHON
VENV := .venv$(if $(GPU),-gpu)
LOCK := requirements$(if $(GPU),-gpu).lock
INSTALLED := $(VENV)/installed
# What the page of `dvc plots` draws with; without it, the page needs a network.
VEGA := .dvc/tmp/vega.js
# The stages in dvc.yaml call `python`, which must be the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# `dvc exp show` has a column for each file, parameter and metric. This drops files, metrics but four
# and, by --only-changed, parameters that all rows share.
DROPPED := /|^(Created|threshold|leaks|training|validation|train|val|step|epochs|best_epoch|parameters|multiply_adds)\b|^test\.(?!(auc|auc_low|auc_high|sensitivity|specificity)$$)

.PHONY: repro test fuzz lint table report verify setup environment lock $(FUZZED:%=fuzz-%)

repro: setup environment
	dvc repro

test: setup
	python -m pytest

# Side by side, one process per target; the first finding fails.
fuzz: setup
	@$(MAKE) --no-print-directory --jobs=$(words $(FUZZED)) --keep-going $(FUZZED:%=fuzz-%)

$(FUZZED:%=fuzz-%): fuzz-%:
	python -m tests.fuzz $* --seconds $(SECONDS) --seed $(SEED)

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	zizmor --quiet --offline .github

table: setup
	dvc exp show --only-changed --no-pager --drop '$(DROPPED)'

report: setup
	@python -m nodules.report.pull_request -- "$$BASE"

verify: setup
	python -m benchmarks.reproducibility $(if $(EPOCHS),--epochs "$$EPOCHS")

setup: $(INSTALLED) $(VEGA)

$(INSTALLED): $(LOCK)
	@"$$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) \
	else "error: found Python %d.%d, expected 3.11 to 3.13; choose: make PYTHON=python3.12" % v)'
	"$$PYTHON" -m venv --clear $(VENV)
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# With this, .venv/bin/dvc works without activation too: its stages find the same python.
	@printf '%s\n' 'import os, sys; os.environ["PATH"] = os.pathsep.join([sys.prefix + "/bin", os.environ.get("PATH", "")])' \
		> "$$(python -c 'import site; print(site.getsitepackages()[0])')/environment-on-path.pth"
	@touch $@

# Writes environment.yaml only if a version has changed; `dvc repro` runs what depends on it.
environment: setup
	python -m nodules.system.environment

$(VEGA): $(INSTALLED)
	python -m nodules.report.vega $@

# Needs uv; run it after a change of the dependencies in pyproject.toml.
lock:
	uv pip compile pyproject.toml --group dev --universal --fork-strategy fewest --generate-hashes --quiet \
		--no-header --output-file requirements.lock
	uv pip compile pyproject.toml --group dev --extra gpu --universal --fork-strategy fewest --generate-hashes --quiet \
		--no-header --output-file requirements-gpu.lock
