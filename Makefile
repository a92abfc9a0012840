# Targets do their own set-up: a virtual environment in .venv, made once and reused.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo test check docs crash-test fuzz soak bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 16

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fcn needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

setup: $(READY)  ## make the virtual environment (the first time: several minutes, 6 GB)

demo: $(READY)  ## segment sample_images with the bundled preview network
	$(BIN)/fcn segment sample_images --backbone mobilenet_v2 --offline --write masks,color,overlay --output demo_output --overwrite
	@echo
	@echo "Look at demo_output/overlay (photos with their classes), demo_output/color and demo_output/masks;"
	@echo "the numbers are in demo_output/stats.csv."

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: $(READY)  ## check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY)  ## write docs/options.md, the table of all options, from the command line
	$(BIN)/python docs/options.py

crash-test: $(READY)  ## kill runs at 40 moments and interrupt others, resume them, compare (some minutes)
	$(BIN)/python -m tests.moments --signals

fuzz: $(READY)  ## segment thousands of broken and hostile images (some minutes)
	$(BIN)/python -m tests.fuzz

soak: $(READY)  ## segment 20,000 small images of 2,000 sizes and watch memory, files, threads, rate
	$(BIN)/python -m tests.soak

bench: $(READY)  ## measure speed and memory (about three hours); needs the extra packages of .[bench]
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.folder
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.upsampling
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.minimal_filtering
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.comparing

clean:  ## delete what the targets made
	rm -rf $(VENV) fuzz_findings build dist demo_output fcn_output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
