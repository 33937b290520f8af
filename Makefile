# Everything runs in .venv, which is made when it is first needed. `make help` lists the commands.
PYTHON ?= python3
JOBS ?= 2
export LRFUSED_BUILD ?= required

BIN := .venv/bin
INSTALLED := .venv/.installed
BUILT := .venv/.built
NATIVE := $(shell find csrc -type f)

.DEFAULT_GOAL := help
.PHONY: help test test-all tests compat facts executed counts demo studies bench changes gpu lint types build clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

# CI has 35 CPU minutes for everything that .ci/run names; these tests may take 20 of them.
test: $(INSTALLED)  ## lint, types, tests, doctests, without the slow tests
	@$(BIN)/python tests/cpu_minutes.py "make test" 20 $(MAKE) --no-print-directory lint types tests

test-all:  ## the same with the slow tests, before an issue is called done
	@$(MAKE) --no-print-directory lint types tests SELECTED=

SELECTED := -m "not slow"
tests: $(BUILT)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(SELECTED) $(ARGS)

compat: $(BUILT)  ## other versions of Python, torch, Triton: docs/compatibility.md (hours, gigabytes)
	$(BIN)/python tests/compat/run.py $(ARGS)

facts: $(INSTALLED)  ## write docs/facts.md and differences.md, the tables of what the tests show
	$(BIN)/python tests/facts.py

executed: $(BUILT)  ## write docs/executed.md, what was executed on a GPU, interpreted or compiled
	$(BIN)/python tests/executed.py

counts: $(BUILT)  ## write docs/counts.md, what the compiled kernels cost (a minute)
	$(BIN)/python tests/counts.py

demo: $(BUILT)  ## train a small GPT with torch's pipeline and with lrfused, draw both
	$(BIN)/python benchmarks/demo.py $(ARGS)

studies: $(BUILT)  ## the chapters' 25 studies: docs/studies.md (ARGS=--quick, or "--only NAME ...")
	@PYTHONPATH=benchmarks $(BIN)/python tests/cpu_minutes.py "make studies" 45 \
		$(BIN)/python -m studies --jobs $(JOBS) $(ARGS)

# Options that select something are those of the first; the second has its own target.
bench: $(BUILT)  ## time lrfused beside torch and DeepSpeed (ARGS=--quick), or AGAINST=another checkout
	$(BIN)/python benchmarks/$(if $(AGAINST),checkouts.py $(AGAINST),bench.py) $(ARGS)
	$(if $(filter-out --quick,$(ARGS)),,@$(MAKE) --no-print-directory changes)

changes: $(BUILT)  ## the part of it that times steps with changes and many groups, in minutes
	$(BIN)/python benchmarks/changes.py $(if $(AGAINST),--against $(AGAINST)) $(ARGS)

# With the machine's own Python: nothing is installed.
gpu:  ## on a GPU: build, test and benchmark by PYTHON, in 9 minutes (ARGS=--dry-run)
	$(PYTHON) benchmarks/gpu_run.py $(ARGS)

lint: $(INSTALLED)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy
	$(BIN)/mypy

build: $(INSTALLED)  ## wheel and sdist, into dist/
	rm -rf dist
	$(BIN)/python -m build

clean:  ## remove what was built (.venv stays; remove it by hand)
	rm -rf build dist *.egg-info lrfused/*.so lrfused/build_failure.txt $(BUILT)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The stamps are written last, so an interrupted run is taken up again by the next one.
$(INSTALLED): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	LRFUSED_BUILD=never $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

$(BUILT): $(INSTALLED) setup.py $(NATIVE)
	$(BIN)/python setup.py build_ext --inplace
	touch $@
