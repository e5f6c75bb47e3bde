# Everything lives in .venv at the top of the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo llm-demo test test-ecosystem lint check clean
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## .venv with everything, at the tried versions

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## From nothing: train, evaluate and report, small
	$(BIN)/python -m experiments.train experiment=demo
	$(BIN)/python -m experiments.evaluate run=runs/demo
	$(BIN)/python -m experiments.report runs=runs/demo

llm-demo: install  ## A small language model on this machine gives the feedback; the second run asks nothing
	$(BIN)/python -m experiments.llm_demo

test: install  ## The whole test suite
	$(BIN)/python -m pytest -n 2

test-ecosystem:  ## The examples of docs/plugins, in virtual environments of their own; writes docs/results/ecosystem.md
	$(PYTHON) tests/ecosystem/run.py

lint: install  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: test lint  ## All that CI runs

clean:  ## Remove .venv and caches; runs stay
	rm -rf $(VENV) .venv-ecosystem build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
