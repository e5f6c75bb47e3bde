# The environment is .venv at the top of the checkout. test-launchers, test-ecosystem and dist-check make further environments.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

LAUNCHERS := .venv-launchers
ECOSYSTEM := .venv-ecosystem

.PHONY: help install demo app app-pictures pictures llm-demo test test-waits test-files test-robustness test-pages test-launchers test-ecosystem lint docs screenshots dist-check check clean
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## .venv with the extra all and the tools for tests and docs, at the tried versions

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## Trains the best agent and the note's plain algorithm, beside cosine; writes a figure and a report
	$(BIN)/python -m experiments.demo

app: install  ## The page in the browser on which you are the applicant, at http://127.0.0.1:8000
	$(BIN)/python -m experiments.app

app-pictures: install  ## Pictures and a recording of the page of make app, into docs/images; needs Chromium
	$(BIN)/python -m experiments.app pictures=docs/images

pictures: install  ## Pictures of the demo's report, into docs/images; needs Chromium
	$(BIN)/python -m experiments.demo
	$(BIN)/python -m experiments.report runs=runs/demo screenshots=docs/images

llm-demo: install  ## A small language model on this machine gives the feedback; a second run does not ask it again
	$(BIN)/python -m experiments.llm.demo

# An empty PYTHONDONTWRITEBYTECODE lets Python keep bytecode. Without bytecode each of the three workers compiles every test.
test: install  ## The whole test suite
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal

test-waits: install  ## The tests that wait for processes, servers and locks, twenty times beside eight busy processes
	$(BIN)/python tests/busy.py

test-files: install  ## 2,000 files of twelve kinds, changed in ways that keep their meaning and in ways that do not
	JOBREC_FILES=1000 $(BIN)/python -m pytest tests/jobrec_gym/loaders/test_mutations.py

test-robustness: install  ## Odd files, odd calls, bad servers, killed processes and many users at once; writes docs/results/robustness.md
	$(BIN)/python tests/robustness/run.py $(ROBUSTNESS)

test-pages: docs  ## The site in Debian's Chromium: nothing overflows, axe-core finds nothing, a search finds what is public
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt axe-playwright-python
	$(BIN)/python -m pytest -m site tests/test_site.py

test-launchers:  ## Sweeps by every launcher; Ray's plug-in needs a venv of its own
	test -x $(LAUNCHERS)/bin/python || $(PYTHON) -m venv $(LAUNCHERS)
	$(LAUNCHERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[llm,ray,redis,submitit]' pytest
	$(LAUNCHERS)/bin/python -m pytest tests/experiments/test_launchers.py

test-ecosystem:  ## The examples of docs/plugins and docs/tracking.md, in virtual environments of their own; writes docs/results/ecosystem.md
	$(PYTHON) tests/ecosystem/run.py

lint: install  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install  ## The site, in build/docs; a warning is an error
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -b html docs build/docs

screenshots: docs  ## Pictures of the site's home and gallery, into docs/images
	$(BIN)/python -m tests.screenshots

dist-check: install  ## Builds sdist and, from it, the wheel; installs it without extras into a new venv and checks it
	rm -rf dist build/installed
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/installed
	build/installed/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cp tests/installed.py build/installed && cd build/installed && bin/python installed.py

check: test lint docs dist-check  ## All that CI runs

clean:  ## Remove venvs and caches; runs stay
	rm -rf $(VENV) $(LAUNCHERS) $(ECOSYSTEM) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
