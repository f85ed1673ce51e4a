# Each target is enough on a fresh machine: it sets up .venv first (once). `make` alone says what there is.
#   make run CONFIG="config.yaml workflow/studies/smoke.yaml"   another study      make run CORES=8   fewer or more cores

CONFIG ?= config.yaml
CORES ?= all
PYTHON ?=

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHON
# Where the home folder is not there or cannot be written (containers, service accounts), caches go into the checkout.
ifneq ($(shell d="$${XDG_CACHE_HOME:-$$HOME/.cache}"; mkdir "$$d" 2>/dev/null; test -d "$$d" -a -w "$$d" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.cache
export XDG_CONFIG_HOME := $(CURDIR)/.cache
endif
PYTEST = OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
SNAKEMAKE = snakemake --cores $(CORES) --rerun-incomplete --logger study --configfile $(CONFIG)

.DEFAULT_GOAL := help
.PHONY: help setup run check doctor test test-fast lint format clean

help:
	@echo "make run        set up, run the study of config.yaml, print its table"
	@echo "make test       set up, run all tests"
	@echo "make test-fast  set up, run the tests that take seconds"
	@echo "make lint       set up, ruff, mypy, layers of imports, snakefmt, snakemake --lint"
	@echo "make format     set up, reformat Python and Snakemake files"
	@echo "make setup      only make .venv with every package and system library"
	@echo "make check      set up, say what config.yaml will run"
	@echo "make doctor     set up, say what the study needs, what of it is missing, what it will cost"
	@echo "make clean      remove results/ (not .venv)"

setup: .venv/.ready

.venv/.ready: envs/constraints.txt envs/setup.sh envs/system_libraries.py pyproject.toml
	@bash envs/setup.sh

check: setup
	@python -m pipeline check $(CONFIG)

doctor: setup
	@python -m pipeline doctor $(CONFIG)

run: check
	@$(SNAKEMAKE)
	@echo
	@cat results/tables/summary.md
	@echo
	@echo "table   results/tables/summary.parquet (and summary.md)"
	@echo "cells   results/tables/cells/"
	@echo "report  results/report/index.html"

test: setup
	@$(PYTEST)

test-fast: setup
	@$(PYTEST) -m "not slow"

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint

format: setup
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow
	python -m pipeline schema > workflow/schemas/config.schema.json

clean:
	@rm -rf results/* .snakemake
	@echo "results/ is empty"
