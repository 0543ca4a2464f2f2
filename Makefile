# `make demo` or `make test` alone is enough on a machine with Python 3.11 or newer: each creates .venv first.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PIP_INSTALL := $(BIN)/python -m pip install --constraint constraints.txt
# All but the builders, the recipes and the evaluation; of the data one file for each way in.
CORE_TESTS := tests/test_package.py tests/test_thresholds.py tests/callbacks tests/layers tests/losses tests/metrics tests/models \
	tests/networks $(patsubst %,tests/data/test_%.py,arrays dicom folder loading parting phantoms pipeline)

export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  %-38s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " + v + ": name another one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# TensorFlow and everything that the demo needs; PyTorch and JAX, the larger part, come with the development tools.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) pip
	$(PIP_INSTALL) --build-constraint constraints.txt --editable .
	@touch $@

# The pinned PyTorch goes first, so that no range of another package chooses a newer and larger build.
$(DEV): $(RUNTIME)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: environment
environment: $(DEV)  ## Create or update .venv with all three backends and the development tools

.PHONY: demo
demo: $(RUNTIME)  ## Train Hermes on the embedded phantom images and show the result (minutes)
	rm -rf runs/demo
	$(BIN)/python -m recipes.hermes_busi --demo --output runs/demo

.PHONY: test
test: $(DEV)  ## Run the tests on the default backend
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-tensorflow test-jax test-torch
test-tensorflow test-jax test-torch: test-%: $(DEV)  ## Run the tests on that backend
	KERAS_BACKEND=$* $(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: no-tensorflow
no-tensorflow: $(DEV)  ## Run the core tests on PyTorch with TensorFlow made impossible to import
	KERAS_BACKEND=torch KERAS_SEMIMED_BLOCK_TENSORFLOW=1 $(BIN)/python -m pytest $(CORE_TESTS) $(PYTEST_ARGS)

.PHONY: format
format: $(DEV)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: format-check
format-check: $(DEV)  ## Fail where the code is not formatted
	$(BIN)/ruff format --check .

.PHONY: lint
lint: $(DEV)  ## Lint
	$(BIN)/ruff check .

.PHONY: typecheck
typecheck: $(DEV)  ## Check the types
	$(BIN)/mypy

.PHONY: docs
docs: $(DEV)  ## Build the site of documents and API reference into build/docs; a warning is an error
	$(BIN)/python .ci/build_docs.py

.PHONY: wheel-check
wheel-check: $(DEV)  ## Build the wheel and use it in a clean environment beside Hugging Face's datasets
	$(BIN)/python .ci/check_wheel.py

.PHONY: clean
clean:  ## Remove the environment, caches and build results (not runs/)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
