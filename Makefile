# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv from this folder's own files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file's tests stay together, so that what they share is made once; they are dealt out in the order of tests/conftest.py.
BOTH_CORES := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-all check docs bench format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,simulation]'
	touch $(STAMP)

demo: install
	$(BIN)/python -m hilum.simulations.demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -m "not slow" $(BOTH_CORES) --durations=15

test-all: install
	$(BIN)/pytest $(BOTH_CORES) --durations=15

# The fast loop, under 90 seconds: no deployment, no simulation, no real data. SINCE=BRANCH compares with another than main.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/support/changed_tests.py $(SINCE)

# Opened from build/docs/index.html, without a server. The variable silences an announcement of mkdocs-material's.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/volume.py
	$(BIN)/python benchmarks/codecs.py
	$(BIN)/python benchmarks/crops.py
	$(BIN)/python benchmarks/volume_epoch.py
	$(BIN)/python benchmarks/federation.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/simulation.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo-run .mypy_cache .ruff_cache .pytest_cache
