# derma: the two commands of a newcomer are `make exam` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := samples/drawn-exam
.PHONY: exam test test-all lint docs isic-scorer bench-transport bench-recovery bench-overhead bench-gpu gpu-check \
  clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "derma needs Python 3.11 or newer, and $(PYTHON) is not; say which: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

# one stamp for each set of dependencies, redone when pyproject.toml changes
$(VENV)/.core: $(BIN)/python pyproject.toml
	@echo "installing derma and its core dependencies into $(VENV) (half a minute, with a good line)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . >&2
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "installing the test dependencies" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' >&2
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint]' >&2
	@touch $@

$(VENV)/.all: $(VENV)/.test constraints-train.txt
	@echo "installing torch and the training dependencies" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-train.txt torch >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-train.txt \
	  -e '.[test,peers,train,observe,trace,cloud,bench,docs,gpu]' >&2
	@touch $@

# the official scorer of the ISIC challenge, in a Python of its own: it needs older packages
isic-scorer: $(VENV)/isic/.done
$(VENV)/isic/.done: $(BIN)/python
	@echo "installing the ISIC challenge's scorer into $(VENV)/isic" >&2
	@$(PYTHON) -m venv $(VENV)/isic
	@$(VENV)/isic/bin/python -m pip install --quiet --disable-pip-version-check isic-challenge-scoring==5.6.0 'pandas<3' \
	  'numpy<2.5' >&2
	@touch $@

# examine the sample recording and print the summary; JSON=1: one JSON line, last
exam: $(VENV)/.core
ifdef JSON
	@summary=$$($(BIN)/derma up $(SAMPLE).mp4 --json) && \
	  $(BIN)/derma findings --truth $(SAMPLE).json >&2 && echo "$$summary"
else
	@$(BIN)/derma up $(SAMPLE).mp4
	@$(BIN)/derma findings --truth $(SAMPLE).json
	@echo "source $(BIN)/activate puts derma on your path" >&2
endif

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.all isic-scorer
	$(BIN)/python -m pytest

docs: $(VENV)/.all
	$(BIN)/mkdocs build --strict

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-transport: $(VENV)/.core
	$(BIN)/python bench/transport.py

bench-recovery: $(VENV)/.core
	$(BIN)/python bench/recovery.py

bench-overhead: $(VENV)/.core
	$(BIN)/python bench/overhead.py

$(VENV)/.gpu: $(VENV)/.test
	@echo "installing TensorRT and a binding to CUDA" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,gpu]' >&2
	@touch $@

# on a machine with an NVIDIA GPU: runner contract, engines against their networks, pipeline, kills; 5: there is none
gpu-check: $(VENV)/.gpu
	@$(BIN)/python tests/gpu/check.py

# any machine: networks and pipeline on every runner that it offers -> bench/results/<device>-<date>.json
bench-gpu: $(VENV)/.gpu $(VENV)/.all
	$(BIN)/python bench/gpu.py

clean:
	rm -rf $(VENV) derma-data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
