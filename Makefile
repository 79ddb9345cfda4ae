# Every target sets itself up: `make demo` and `make test` need nothing but Python 3.10 … 3.13.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
MODEL  ?= checkpoints/lecture

.PHONY: demo test check audit train robust export verify bench figures chromium clean

demo: $(VENV)/.demo          ## the app, at http://localhost:7860
	$(PY) -m demo

test: $(VENV)/.dev chromium  ## the whole test suite
	$(PY) -m pytest

check: $(VENV)/.dev          ## lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

audit: $(VENV)/.demo         ## known vulnerabilities of what is installed
	$(PY) -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9,<3"
	$(PY) -m pip_audit

train: $(VENV)/.demo         ## the shipped checkpoint again, from MNIST
	$(PY) -m bnmodel train --recipe lecture --dataset mnist --out checkpoints/lecture

robust: $(VENV)/.demo        ## the same for robust: chosen on validation digits, refitted on all, exported
	$(PY) -m bnmodel train --recipe robust --out build/chosen
	$(PY) -m bnmodel refit build/chosen --out checkpoints/robust
	$(PY) -m export checkpoints/robust

export: $(VENV)/.demo        ## the exported files and their certificate
	$(PY) -m export $(MODEL)

verify: $(VENV)/.demo        ## every promise of the certificate, checked again
	$(PY) -m export verify $(MODEL)

bench: $(VENV)/.dev chromium ## all benchmarks; writes benchmarks/results/*.json
	$(PY) -m benchmarks

figures: $(VENV)/.dev chromium ## the README's pictures, from the real app
	$(PY) -m benchmarks.figures

$(VENV)/.demo: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/.demo

# The system's Chromium where there is one; Debian's for root; Playwright's own otherwise.
chromium: $(VENV)/.dev
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	  || $(PY) -m playwright install chromium

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
