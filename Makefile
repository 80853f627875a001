# `make serve` and `make test` need nothing but Python 3.11 or newer; each makes its own environment.
PYTHON ?= python3
VENV := .venv
VENV_DEV := .venv-dev
BIN := $(VENV_DEV)/bin
MODELS ?= exported
ADDRESS ?= 127.0.0.1:50051
METRICS_ADDRESS ?= 127.0.0.1:9090

.PHONY: help serve test check format proto bench test-container test-node clean

help:
	@echo "make serve   start the server on the shipped models   ($(ADDRESS), metrics on $(METRICS_ADDRESS))"
	@echo "make test    run every test that needs no container and no Node"
	@echo "make check   ruff, mypy, import contracts, generated code up to date"
	@echo "make bench   speed against PyTorch, side by side"
	@echo "make proto   generate the code of proto/heed/v1"
	@echo "make test-container, make test-node   real containers (podman), a Node client"

# The service's environment: no torch, no tools.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	@touch $@

# The developer's environment: training, tests, tools.
$(VENV_DEV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_DEV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'torch==2.13.0'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,training,dev]'
	@touch $@

serve: $(VENV)/.ready
	$(VENV)/bin/heed serve --models $(MODELS) --address $(ADDRESS) --metrics-address $(METRICS_ADDRESS)

test: $(VENV_DEV)/.ready
	$(BIN)/python -m pytest -m 'not container and not node'

test-container: $(VENV_DEV)/.ready
	$(BIN)/python -m pytest -m container

test-node: $(VENV_DEV)/.ready
	$(BIN)/python -m pytest -m node

check: $(VENV_DEV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.check_generated

format: $(VENV_DEV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV_DEV)/.ready
	$(BIN)/python -m tests.check_generated --write

bench: $(VENV_DEV)/.ready
	$(BIN)/python -m benchmarks.recurrent_engine

clean:
	rm -rf $(VENV) $(VENV_DEV) build dist *.egg-info
