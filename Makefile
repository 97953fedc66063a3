# The project's own commands. `make install` keeps everything in .venv and runs only when something changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: FORCE help install quickstart test test-slow test-scale test-simulators test-schedules aot docs lint format types clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs-installed
AOT := $(VENV)/aot
JAX := $(shell sed -n 's/^jax==//p' constraints.txt)
EXTRAS := robotics,dmc,sweep,bench,dev
SIZE ?= full
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# Headless by default: rendering asks for MUJOCO_GL=egl or osmesa.
export MUJOCO_GL ?= disable

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(STAMP) ## make .venv and install the project into it, editable

# `make install PYTHON=...` runs even where nothing has changed: it may name another Python than that of .venv.
$(STAMP): pyproject.toml constraints.txt $(if $(filter command%,$(origin PYTHON)),FORCE)
	@.ci/make_venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(STAMP)

quickstart: install ## collect, train AT, DT, BC and BC-10 %, roll out, compare (SIZE=smoke for a small one)
	$(BIN)/python experiments/quickstart/run.py --size $(SIZE)

test: install ## run the tests (WORKERS=2 processes)
	$(PYTEST)

test-slow: install ## run the tests marked slow
	$(PYTEST) -m slow

test-scale: install ## test every kind of mesh, and runs of several processes
	$(PYTEST) -m scale

test-simulators: install ## collect, import, train and evaluate in every simulator
	$(PYTEST) -m simulators

test-schedules: aot ## compile the ring for TPUs and GPUs, and test when its transfers travel
	$(PYTEST) -m aot

aot: $(AOT)/.installed ## install compilers for TPUs and NVIDIA GPUs (no device needed; 270 MB to download, 900 MB)

# In a folder of its own, named to the processes that compile: a JAX that sees libtpu looks for a TPU.
# Nor is this libtpu in constraints.txt: JAX's extra for TPUs pins an older one.
$(AOT)/.installed: constraints.txt Makefile | install
	rm -rf $(AOT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(AOT) \
	  libtpu==0.0.52 jax-cuda13-plugin==$(JAX) jax-cuda13-pjrt==$(JAX)
	@touch $@

docs: $(DOCS) ## build the documentation into docs/_build; a dead link is an error
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

lint: install ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## apply style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## check types
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove .venv and caches (run folders and data stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist docs/_build
