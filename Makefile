# Targets do their own set-up: a virtual environment in .venv, made once and reused. It comes in two steps, each with a
# stamp: what running needs, and what tests and checks need beside it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNS   := $(VENV)/.runs
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Where PyTorch comes from, if not from pip's index: TORCH_INDEX=https://download.pytorch.org/whl/cpu is without CUDA.
TORCH_INDEX ?=

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
SCHEMA := $(BIN)/check-jsonschema --builtin-schema

.PHONY: help setup hooks demo test-fast test test-slow test-all hostile-test official-test cluster-test coverage check fix docs crash-test fuzz soak gpu-test gpu-bench bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 16

$(RUNS): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fcn needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@echo "Installing fcn and PyTorch into $(VENV): once, some minutes."
	test -e $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(PIP) --editable .
	touch $@

$(READY): $(RUNS)
	$(PIP) --editable '.[dev]'
	touch $@

setup: $(READY)  ## make the virtual environment, with what tests need (the first time: several minutes, 6 GB)

demo: $(RUNS)  ## segment sample_images with the bundled preview network
	$(BIN)/fcn segment sample_images --backbone efficientnet_lite0 --offline --write masks,color,overlay --palette bright --output demo_output --overwrite
	@echo
	@echo "Look at demo_output/overlay (the images with their classes), demo_output/color and demo_output/masks;"
	@echo "the numbers are in demo_output/stats.csv."

test-fast: $(READY)  ## run the quick tests (under a minute in all)
	$(PYTEST) -m "not slow and not long"

test: $(READY)  ## run the tests, but for the slowest and those that need a browser, a cluster or a server (6 minutes on 2 cores)
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## run the other tests: each skips, with a reason, where its browser, cluster or server is missing
	$(PYTEST) -m slow

test-all: test test-slow  ## run all tests (under 20 minutes)

hostile-test: $(READY)  ## run every command over output directories that somebody else prepared (test-slow has it, too)
	$(PYTEST) tests/hostile

official-test: $(READY)  ## fetch the official weights (350 MB), compare masks of sample_images with torchvision's (test-slow has stand-ins)
	$(BIN)/python -m pytest tests/test_official_weights.py --official-weights

coverage: $(READY)  ## run the tests and say what they miss; processes that they start are counted
	rm -f .coverage .coverage.*
	COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --timeout 600
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(READY)  ## check format, lint, types, the direction of imports, and the forms in .github
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff

fix: $(READY)  ## format, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(READY)  ## check each commit before it is made (installs pre-commit)
	$(PIP) 'pre-commit>=4'
	$(BIN)/pre-commit install

docs: $(READY)  ## write docs/options.md, the table of all options, from the command line
	$(BIN)/python docs/options.py

cluster-test: $(READY)  ## run on Ray clusters on this machine; actors, a node and the driver die (5 minutes)
	$(BIN)/python -m pytest tests/cluster tests/modes

crash-test: $(READY)  ## kill runs at 40 moments and interrupt others, also as they start, resume them, compare (20 minutes)
	$(BIN)/python -m tests.moments --signals
	$(BIN)/python -m tests.interrupts

fuzz: $(READY)  ## segment thousands of broken and hostile images (some minutes)
	$(BIN)/python -m tests.fuzz

soak: $(READY)  ## segment 20,000 small images of 2,000 sizes and watch memory, files, threads, rate
	$(BIN)/python -m tests.soak

gpu-test: $(READY)  ## check everything that needs a CUDA device; skips, with the reason, where there is none (10 minutes)
	timeout 600 $(BIN)/python -m pytest tests/gpu -m gpu

gpu-bench: $(READY)  ## measure the speed on a CUDA device (10 minutes)
	timeout 600 $(BIN)/python -m benchmarks.gpu

bench: $(READY)  ## measure speed and memory (about three hours); needs the extra packages of .[bench]
	$(PIP) --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.folder
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.host
	$(BIN)/python -m benchmarks.upsampling
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.minimal_filtering
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.tiles
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.comparing
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.start

clean:  ## delete what the targets made
	rm -rf $(VENV) .coverage .coverage.* fuzz_findings build dist demo_output fcn_output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
