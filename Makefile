# Sets up the environment and runs the pipeline on a machine with only Python, git and make.
#
#   make help                      list the targets
#   make demo                      train both networks on a small data set and compare them
#   make repro                     run the stages of the pipeline that a change affects
#   make test                      run the tests and print the coverage
#   make test COVERAGE=            run the tests without measuring, which is faster
#   make docs                      build the documentation in docs/_build/html
#   make table                    list experiments: what they changed and how they did on test
#   make environment               record the installed versions of what decides results
#   make lint                      run the linters
#   make fuzz SECONDS=60           read damaged models, scans and DICOM files for a minute each
#   make report BASE=main          compare HEAD with main, as on a pull request, in report/
#   make verify                    run the pipeline twice for each model and recipe, compare hashes
#   make verify EPOCHS=1           the same with one epoch
#   make repro PYTHON=python3.12   with a certain Python, if .venv does not exist yet
#   make repro GPU=1               with TensorFlow for NVIDIA GPUs (Linux), in .venv-gpu

PYTHON ?= python3
BASE ?= main
COVERAGE ?= 1
SECONDS ?= 60
SEED ?= 0
FUZZED := models metaimage dicom
# Values from users and branch names are text. Make would expand $(shell ...) in them, and a shell
# quotes, so make takes them unexpanded and recipes read them from the environment.
override BASE := $(value BASE)
override EPOCHS := $(value EPOCHS)
override GPU := $(value GPU)
override PYTHON := $(value PYTHON)
export BASE EPOCHS PYTHON
VENV := .venv$(if $(GPU),-gpu)
LOCK := requirements$(if $(GPU),-gpu).lock
# A copy of the lock file that was installed.
INSTALLED := $(VENV)/installed
# The page of `dvc plots` draws with Vega; with this template it holds Vega, otherwise it needs a network.
OFFLINE := .dvc/plots/offline.html
# The stages in dvc.yaml call `python`, which must be the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Two installations into one folder would ruin each other.
ONE_AT_A_TIME := "$$PYTHON" -c 'import fcntl, subprocess, sys; lock = open("Makefile"); \
	fcntl.flock(lock, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[1:]))'
# pip is to install into $(VENV), whatever these variables are set to for other projects.
export PIP_USER := 0
export PIP_TARGET :=
export PIP_PREFIX :=

DEMO := --set-param dataset=data/phantom.h5 --set-param recipe=tuned --set-param phantom.scans=48 --set-param recipes.tuned.epochs=8

# `dvc exp show` has a column for each file, parameter and metric. SHOWN stay; of the others, only the
# parameters that differ between the rows. In Markdown, since DVC cuts off its own table.
SHOWN := (Experiment|model|recipe|dataset|test\.(auc|auc_low|auc_high|sensitivity|specificity))$$
DROPPED := .*/|(Created|State|Executor|rev|typ|parent|threshold|leaks|training|validation|train|val|test|step|epochs|best_epoch|parameters|multiply_adds)\b

.PHONY: help demo install repro test docs fuzz lint table report verify setup environment lock $(FUZZED:%=fuzz-%)

repro: setup environment
	dvc repro

help:
	@sed -n 's/^#   //p' Makefile

# Earlier demos are removed first, since --force would also generate the data set twice.
demo: setup environment
	@for name in squeezenet mobilenet; do dvc exp remove --quiet demo-$$name 2>/dev/null || true; done
	dvc exp run --temp --name demo-squeezenet --set-param model=squeezenet $(DEMO)
	dvc exp run --temp --name demo-mobilenet --set-param model=mobilenet $(DEMO)
	nodules compare demo-squeezenet demo-mobilenet --html report/demo.html
	@echo 'Wrote report/demo.html. With 48 of 160 scans and 8 of 60 epochs, both networks score far lower than after full training.'

# Also prints which modules the tests hardly run; measuring takes time before Python 3.12.
test: setup
	python -m pytest $(if $(COVERAGE),--cov --cov-report=)

# Warnings are errors; -n also reports references to names that do not exist.
docs: setup
	sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

# One process per target, in parallel; any finding fails.
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
	dvc exp show --only-changed --no-pager --md --precision 3 --keep '$(SHOWN)' --drop '$(DROPPED)'

report: setup
	@python -m nodules.report.pull_request -- "$$BASE"

verify: setup
	python -m benchmarks.reproducibility $(if $(EPOCHS),--epochs "$$EPOCHS")

# The lock file is compared by content, so a new checkout or a wrong clock rebuilds nothing.
setup:
	@cmp -s $(LOCK) $(INSTALLED) && test $(OFFLINE) -nt .dvc/plots/page.html || $(ONE_AT_A_TIME) $(MAKE) --no-print-directory install

# Another `make` may have installed everything while this one waited for its turn.
install:
	@cmp -s $(LOCK) $(INSTALLED) || $(MAKE) --no-print-directory $(VENV)
	python -m nodules.report.vega .dvc

$(VENV): FORCE
	@"$$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) \
	else "error: found Python %d.%d, expected 3.11 to 3.13; choose: make PYTHON=python3.12" % v)'
	"$$PYTHON" -m venv --clear $@
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	python -m nodules.system.environment
	@cp $(LOCK) $(INSTALLED)

FORCE:

# Writes environment.yaml only if a version has changed; `dvc repro` runs what depends on it.
environment: setup
	python -m nodules.system.environment

# Needs uv; run it after a change of the dependencies in pyproject.toml.
lock:
	uv pip compile pyproject.toml --group dev --universal --fork-strategy fewest --generate-hashes --quiet \
		--no-header --output-file requirements.lock
	uv pip compile pyproject.toml --group dev --extra gpu --universal --fork-strategy fewest --generate-hashes --quiet \
		--no-header --output-file requirements-gpu.lock
