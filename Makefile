# Every command of the project. `make` alone lists them. Set-up happens by itself, once; stamps remember it.

PYTHON ?= python3
BIN := .venv/bin
SETUP := PYTHON="$(PYTHON)" tools/setup.sh
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test check format wheel golden mutants web bench peers clean setup system

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: .venv/stamp-dev .cache/pyodide/stamp web/node_modules/stamp ## everything that development needs, and nothing run

ifdef CHECK
demo: .venv/stamp-dev system ## the digits example in a page (CHECK=1: in a headless browser, and check it)
	$(BIN)/python examples/digits/demo.py --check
else
demo: .venv/stamp-demo
	$(BIN)/python examples/digits/demo.py --serve
endif

test: setup system ## all tests, the browser's too
	$(BIN)/python -m pytest

check: setup ## what to run before a commit: format, lint, types, layers, the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not browser"

format: .venv/stamp-dev ## lay out the code, and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

wheel: .venv/stamp-dev ## dist/nearfield-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist/*.whl

golden: setup ## rewrite tests/golden from what the code does now; read the diff
	NEARFIELD_GOLDEN=1 $(BIN)/python -m pytest -q -m "not browser"
	@git --no-pager diff --stat -- tests/golden

mutants: setup ## plant mistakes one at a time in a copy, and count those that the tests catch
	$(BIN)/python tools/mutants.py

web: web/node_modules/stamp ## build the runner into src/nearfield/web
	npm --prefix web run --silent build

ifdef PEERS
bench: .venv/stamp-dev system peers ## measure in Chromium (PEERS=1: install other libraries, and measure them too)
else
bench: .venv/stamp-dev system
endif
	$(BIN)/python -m benchmarks.driver limits
	$(BIN)/python -m benchmarks.driver bench
	$(BIN)/python -m benchmarks.driver cold
	$(BIN)/python -m benchmarks.report

peers: .venv/stamp-dev
	@PYTHON="$(PYTHON)" benchmarks/peers/setup.sh

clean: ## remove what was built and cached; leaves .venv and web/node_modules
	rm -rf build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Set-up, each part once.
system:
	@$(SETUP) system

.venv/stamp-%: pyproject.toml tools/setup.sh
	@$(SETUP) venv $*

.cache/pyodide/stamp: tests/browser/package-lock.json tools/setup.sh | .venv/stamp-dev
	@$(SETUP) pyodide

web/node_modules/stamp: $(wildcard web/package-lock.json) tools/setup.sh | .venv/stamp-dev
	@$(SETUP) web
