# Needs bash, make and python3 (3.11 or newer). `make` alone explains the rest.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env figures lab test test-browser test-lowest lint notebooks clean

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count() or 1))' 2>/dev/null)
PY := $(VENV)/bin/python

# The environment is fresh while pyproject.toml, the Python version and this folder stay the same.
DIGEST := $(shell $(PYTHON) -c 'import hashlib, os, sys; \
  text = open("pyproject.toml", "rb").read() + sys.version.encode() + os.getcwd().encode(); \
  print(hashlib.sha256(text).hexdigest()[:16])' 2>/dev/null)
STAMP := $(VENV)/.vlmlab-$(or $(DIGEST),none)
LAB_STAMP := $(STAMP)-lab
SMOKE := build/smoke

help:
	@echo "vlmlab"
	@echo
	@echo "  make figures    train what is missing and draw the figures into figures/ (start here)"
	@echo "                  JOBS=n cores for trainings and notebooks (default: one per core, at most 8)"
	@echo "  make lab        open JupyterLab here, with this environment as the kernel of the notebooks"
	@echo "                  (installs it the first time; LAB='--no-browser --port 8889' passes options on)"
	@echo "  make test       run the fast tests, then every notebook with tiny settings"
	@echo "  make test-browser  the explorers in a real JupyterLab and as a Voila page; needs Chromium"
	@echo "  make test-lowest  the fast tests at the lowest versions of pyproject.toml, in an environment of its own"
	@echo "  make lint       check the style of code and notebooks"
	@echo "  make notebooks  clean the notebooks before a commit: no outputs, stable cell ids"
	@echo "  make env        install everything into $(VENV); the others do this when needed"
	@echo "  make clean      remove .venv and caches; runs/ and figures/ stay"
	@echo
	@echo "  make test VENV=path   uses the environment at that path instead of .venv"
	@echo "  make test PYTHON=...  makes the environment from another interpreter than python3"

env: $(STAMP)

$(STAMP): | pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vlmlab needs Python 3.11 or newer as '$(PYTHON)'; name another with PYTHON=..." >&2; exit 1; }
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "making an environment in $(VENV)"; \
	  $(PYTHON) -m venv "$(VENV)" || { \
	    echo "'$(PYTHON) -m venv $(VENV)' failed. On Debian and Ubuntu: apt install python3-venv." >&2; \
	    echo "Or name an environment that exists: make VENV=path" >&2; exit 1; }; \
	fi
	@echo "installing vlmlab and what it needs into $(VENV) (a few minutes the first time)"
	@$(PY) -m pip install -qq --disable-pip-version-check -e '.[test]'
	@rm -f "$(VENV)"/.vlmlab-*
	@touch "$@"

figures: $(STAMP)
	$(VENV)/bin/vlmlab reproduce --jobs $(JOBS)

# The notebooks ask for a kernel `python3`: in this environment that is its own interpreter, whatever others
# of that name lie elsewhere.
$(LAB_STAMP): $(STAMP)
	@echo "installing JupyterLab into $(VENV)"
	@$(PY) -m pip install -qq --disable-pip-version-check -e '.[lab]'
	@$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "vlmlab ($(VENV))" >/dev/null
	@touch "$@"

lab: export JUPYTER_PREFER_ENV_PATH := 1
lab: $(LAB_STAMP)
	$(PY) -m jupyterlab $(LAB)

test: export OMP_NUM_THREADS := 1
test: $(STAMP)
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	rm -rf $(SMOKE)
	$(VENV)/bin/vlmlab reproduce --profile smoke --jobs $(JOBS) --runs $(SMOKE)
	VLMLAB_PROFILE=smoke $(PY) -m pytest -n $(JOBS) --nbmake --nbmake-timeout=600 notebooks/*.ipynb

test-browser: $(LAB_STAMP)
	$(PY) -m pytest -m slow tests/browser/test_explorer_in_browser.py

test-lowest:
	.ci/lowest

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

notebooks: $(STAMP)
	$(PY) tools/notebooks.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
	find . -path ./.git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
