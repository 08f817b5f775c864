# Two commands for a fresh machine with Python 3.11+ and a C++ compiler: `make demo` and `make check`.
PYTHON ?= python3
BIN := .venv/bin

PROCESSES ?= 2
# A compiler cache is used where there is one: llama.cpp's seven minutes are then spent once. pip builds in folders of new names,
# so paths below the temporary folder count as relative ones.
TMP := $(if $(TMPDIR),$(TMPDIR),/tmp)
ifneq ($(shell command -v ccache),)
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
export CCACHE_BASEDIR ?= $(TMP)
export CCACHE_NOHASHDIR ?= 1
endif
# An index of torch's CPU build, if you name one: without an NVIDIA GPU that saves gigabytes.
TORCH_INDEX ?=
WITHOUT_GPU := $(if $(shell command -v nvidia-smi),,yes)

# each starts with half of the tests, and takes of the other's when it has done its own
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

.PHONY: demo quick test check docs fuzz release clean

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

docs: .venv/.docs ## set up, then the documentation as a site: build/docs/index.html, which needs no network
	$(BIN)/python -m sphinx --builder html --conf-dir docs/site --fail-on-warning --keep-going --quiet . build/docs

FUZZ_SECONDS ?= 600
FUZZ_RUNS ?= 100000
FUZZ_READERS ?=

fuzz: .venv/.fuzz ## set up, then each reader of files under atheris, and a table
	$(BIN)/python tests/fuzz/drive.py --seconds $(FUZZ_SECONDS) --runs $(FUZZ_RUNS) $(FUZZ_READERS)

RELEASE_FLAGS ?=

release: ## wheel and sdist into dist/, each tried in a fresh environment, with a bill of materials and hashes (docs/releasing.md)
	$(PYTHON) tools/release.py $(RELEASE_FLAGS)

# Set up by pip, with these extras
comma := ,
define set-up
	@echo "step 2 of 2: the libraries, a minute or two; then llama.cpp is compiled, about 7 minutes on 2 cores$(if $(CMAKE_C_COMPILER_LAUNCHER), ($(CMAKE_C_COMPILER_LAUNCHER) keeps it for the next time))"
	$(BIN)/pip install -e '.[$(1)]'
	touch $@
endef

.venv/.demo: pyproject.toml | .venv/.torch
	$(call set-up,demo)

.venv/.test: pyproject.toml | .venv/.torch
	$(call set-up,test)

.venv/.docs: pyproject.toml | .venv/.torch
	$(call set-up,docs)

.venv/.fuzz: pyproject.toml | .venv/.torch
	$(call set-up,test$(comma)fuzz)

# torch's own index is asked only where one was named, and only where there is no GPU: which build the default one has depends on the system
.venv/.torch: | .venv
ifneq ($(and $(WITHOUT_GPU),$(TORCH_INDEX)),)
	@echo "step 1 of 2: torch without CUDA, about 200 MB"
	$(BIN)/pip install torch --index-url '$(TORCH_INDEX)'
else ifneq ($(WITHOUT_GPU),)
	@$(BIN)/python -c 'import sys, importlib.util as i; sys.exit(not i.find_spec("torch"))' || echo "step 1 of 2: there is no NVIDIA GPU. On Linux x86-64 torch may bring gigabytes of CUDA libraries: make TORCH_INDEX=URL takes its CPU build (the URL is on torch's page, under Get started, CPU)"
endif
	touch $@

.venv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --upgrade pip

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
