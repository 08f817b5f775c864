# Two commands for a fresh machine with Python 3.11+ and a C++ compiler: `make demo` and `make check`.
PYTHON ?= python3
BIN := .venv/bin

PROCESSES ?= 2
# each starts with half of the tests, and takes of the other's when it has done its own
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

.PHONY: demo quick test check fuzz release clean

demo: .venv/.demo ## set up, then the whole job on the embedded model
	$(BIN)/irm-lite demo

quick: .venv/.test ## set up, then the tests that an edit is tried with: no demo model, no faults, nothing slow
	$(PYTEST) -m "not demo and not faults and not slow"

test: .venv/.test ## set up, then all tests
	$(PYTEST)

check: .venv/.test ## set up, then all that CI runs: lint, types, boundaries, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

FUZZ_SECONDS ?= 600
FUZZ_RUNS ?= 100000
FUZZ_READERS ?=

fuzz: .venv/.fuzz ## set up, then each reader of files under atheris, and a table
	$(BIN)/python tests/fuzz/drive.py --seconds $(FUZZ_SECONDS) --runs $(FUZZ_RUNS) $(FUZZ_READERS)

RELEASE_FLAGS ?=

release: ## wheel and sdist into dist/, each tried in a fresh environment, with a bill of materials and hashes (docs/releasing.md)
	$(PYTHON) tools/release.py $(RELEASE_FLAGS)

.venv/.demo: pyproject.toml | .venv
	$(BIN)/pip install -e '.[demo]'
	touch $@

.venv/.test: pyproject.toml | .venv
	$(BIN)/pip install -e '.[test]'
	touch $@

.venv/.fuzz: pyproject.toml | .venv
	$(BIN)/pip install -e '.[test,fuzz]'
	touch $@

.venv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --upgrade pip

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
