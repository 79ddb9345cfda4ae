# Every target installs what it needs: only Python 3.10 to 3.13 is required.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check
MODEL  ?= checkpoints/lecture
# URL of a package index for PyTorch and torchvision, for example that of the CPU-only builds (docs/install.md)
TORCH_INDEX ?=
# Processes that `make test` uses, each with an app of its own; 0: one process
WORKERS ?= 2
# The tests without a browser and without the app, for `make lowest`
QUICK  ?= tests/nn tests/data tests/deploy tests/export tests/training tests/experiments tests/test_command_line.py \
          tests/test_architecture.py tests/test_packaging.py
# For `make mutants`: the file to break, the tests that should notice, and how many mutants to try
FILE   ?= bnmodel/training/history.py
TESTS  ?= tests/training/test_early_stopping.py
SAMPLE ?= 40

.PHONY: help demo test check audit train robust export verify bench figures docs wheel-check release lowest mutants chromium clean

help:                        ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.demo          ## start the app at http://localhost:7860
	$(PY) -m demo

test: $(VENV)/.dev chromium  ## run the whole test suite
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/.dev          ## lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

audit: $(VENV)/.demo         ## list known vulnerabilities of the installed packages
	$(PIP) "pip-audit>=2.9,<3"
	$(PY) -m pip_audit

train: $(VENV)/.demo         ## train the checkpoint lecture on MNIST
	$(PY) -m bnmodel train --recipe lecture --dataset mnist --out checkpoints/lecture

robust: $(VENV)/.demo        ## train, refit and export the checkpoint robust
	$(PY) -m bnmodel train --recipe robust --out build/chosen
	$(PY) -m bnmodel refit build/chosen --out checkpoints/robust
	$(PY) -m export checkpoints/robust

export: $(VENV)/.demo        ## write the exported files and the certificate of MODEL
	$(PY) -m export $(MODEL)

verify: $(VENV)/.demo        ## repeat all checks of the certificate of MODEL
	$(PY) -m export verify $(MODEL)

bench: $(VENV)/.dev chromium ## run all benchmarks; write benchmarks/results and the tables of the docs
	$(PY) -m benchmarks

figures: $(VENV)/.dev chromium ## take the pictures of the docs from the running app
	$(PY) -m benchmarks.figures

docs: $(VENV)/.dev           ## build the documentation in build/site
	$(PY) -m mkdocs build --strict

wheel-check: $(VENV)/.dev    ## install the wheel and its dependencies in an empty environment, and use it
	rm -rf build/wheel && mkdir -p build/wheel
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/environment
	if [ -n "$(TORCH_INDEX)" ]; then \
	  build/wheel/environment/bin/pip install --quiet --index-url $(TORCH_INDEX) torch torchvision; fi
	build/wheel/environment/bin/pip install --quiet "$$(ls build/wheel/*.whl)[deploy]"
	cd build/wheel && environment/bin/python ../../tests/installed_use.py certified
	cd build/wheel && environment/bin/bnmodel train --recipe fast --dataset digits --epochs 1 --out trained
	cd build/wheel && environment/bin/bnmodel evaluate trained

release: $(VENV)/.dev        ## build source distribution and wheel in build/release, and check them
	rm -rf build/release
	$(PY) -m build --outdir build/release .
	$(PY) -m twine check --strict build/release/*

lowest:                      ## run the quick tests with the lowest versions that the requirements allow
	test -x build/lowest/bin/python || $(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet "uv>=0.9,<1"
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct -r requirements-dev.txt
	build/lowest/bin/python -m pytest $(QUICK)

mutants: $(VENV)/.dev        ## break FILE in SAMPLE ways, one at a time; list those that TESTS do not notice
	$(PY) -m benchmarks.mutants $(FILE) $(TESTS) --sample $(SAMPLE)

$(VENV)/.torch:
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	if [ -n "$(TORCH_INDEX)" ]; then $(PIP) --index-url $(TORCH_INDEX) torch torchvision; fi
	touch $@

$(VENV)/.demo: requirements.txt $(VENV)/.torch
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt $(VENV)/.torch
	$(PIP) -r requirements-dev.txt
	touch $@ $(VENV)/.demo

# The system's Chromium if there is one; else Debian's, as root; else Playwright's own.
chromium: $(VENV)/.dev
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	  || $(PY) -m playwright install chromium

clean:                       ## delete the environment, the built pages and the caches
	rm -rf $(VENV) build/site build/wheel build/release build/mutants .mypy_cache .ruff_cache .hypothesis
