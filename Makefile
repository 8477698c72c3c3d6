# `make demo` and `make test` do all the set-up by themselves; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# The version of torch the project is tested with. On Linux x86-64 the plain package is a CUDA build of several GB:
# for the CPU build, pass the index URL that PyTorch's install page shows for "CPU":  make test TORCH_INDEX=<URL>
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
# For `make demo`: an .npz file, a .pt file or a PyG data set name; empty: the graphs that need no download.
DATA ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
# Processes that run tests side by side.
WORKERS ?= 2
# A folder of .npz graphs for the tests that run on real data; without it they are skipped.
PYG_FULLGRAPH_DATA ?= $(abspath $(wildcard ../shared/data))
export PYG_FULLGRAPH_DATA

BIN := $(VENV)/bin
STEP := scripts/step
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null)
BENCHMARKS := $(shell grep -l '__name__ == "__main__"' benchmarks/*.py 2>/dev/null)
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_FROM := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick bench lint types format docs-check ci clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## train a GCN and a GAT, compare three ways to run them (DATA=file.npz or DATA=Planetoid/PubMed)
	@$(STEP) "demo" $(BIN)/pyg-fullgraph demo $(if $(DATA),--data "$(DATA)") $(DEMO_ARGS)

test: setup ## run all tests (PYTEST_ARGS="-k name" picks some)
	@$(STEP) "tests" $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

quick: setup ## run the tier of tests that covers every module once, in under 3 minutes on two cores
	@$(STEP) "quick tests" $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m quick $(PYTEST_ARGS)

setup: $(VENV)/.built ## only the set-up: virtual environment, torch, PyG, the extension

$(VENV)/.created:
	@$(STEP) "check the system" scripts/check-system "$(PYTHON)"
	@$(STEP) --quiet "create the virtual environment $(VENV)" "$(PYTHON)" -m venv "$(VENV)"
	@touch $@

$(VENV)/.torch: $(VENV)/.created
	@$(STEP) --quiet "install $(TORCH) (the largest download)" $(PIP) install $(TORCH_FROM) "$(TORCH)"
	@touch $@

$(VENV)/.tools: pyproject.toml $(VENV)/.torch
	@$(STEP) --quiet "install the build tools" $(PIP) install "setuptools>=68" "pybind11>=2.12" ninja
	@touch $@

$(VENV)/.built: $(VENV)/.tools setup.py $(CPP)
	@$(STEP) --quiet "install PyG and the test tools, build the C++ kernels, install pyg_fullgraph (editable)" \
	  $(PIP) install --no-build-isolation --editable '.[dev]'
	@$(BIN)/python scripts/versions.py
	@touch $@

bench: setup ## run the benchmarks one after another (long; each has its own --help)
	@for file in $(BENCHMARKS); do $(STEP) "$$file" $(BIN)/python "$$file" || exit 1; done

lint: setup ## ruff and clang-format, checking only
	@$(STEP) "ruff check" $(BIN)/ruff check .
	@$(STEP) "ruff format --check" $(BIN)/ruff format --check .
	@$(if $(CPP),$(STEP) "clang-format" $(BIN)/clang-format --dry-run -Werror $(CPP))

types: setup ## mypy over the package
	@$(STEP) "mypy" $(BIN)/mypy

format: setup ## rewrite the sources as `make lint` wants them
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(if $(CPP),$(BIN)/clang-format -i $(CPP))

docs-check: setup ## run the examples of the documentation, follow its links
	@$(STEP) "documentation" $(BIN)/python -m pytest tests/test_docs.py $(PYTEST_ARGS)

ci: ## everything CI runs
	@bash .ci/run

clean: ## remove what was built, keep the virtual environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)/.built
	rm -f pyg_fullgraph/*.so
	find pyg_fullgraph tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## remove the virtual environment too
	rm -rf "$(VENV)"
