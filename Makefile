# Needs Python >= 3.11 (with venv) and make. Every target sets up what it needs, once.
#   make test PYTHON=python3.12     another Python; each version has a virtual environment of its own

SHELL := /bin/sh
ifndef PYTHON
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$p"; break; }; done)
endif
ifeq ($(strip $(PYTHON)),)
$(error No Python >= 3.11 with the module venv was found; name one: make PYTHON=/path/to/python)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= .venv/$(VERSION)
BIN := $(VENV)/bin
ARGS ?=
# Two processes halve the time of the suite; set JOBS=0 to debug.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup test ci lint types architecture docs coverage bench deep demo serve package test-wheel test-lowest clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.dev ## a virtual environment with everything a developer needs

test: $(VENV)/.test ## the whole suite; a server that is missing here skips its tests and is named
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

ci: lint types architecture ## what CI runs: all checks, and the suite with every server required
	@TENANTRY_REQUIRE_SERVICES=1 $(MAKE) --no-print-directory test

lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy

architecture: $(VENV)/.dev ## import-linter: the core imports no edge, edges do not import each other
	@$(BIN)/lint-imports

docs: $(VENV)/.dev ## the documentation as HTML, warnings are errors
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

coverage: $(VENV)/.test ## every line and branch of the core, by its own tests
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -q -m "not deep" $(CORE_TESTS) $(ARGS)
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report --include='$(CORE)' --fail-under=100

bench: $(VENV)/.bench ## the figures of docs/performance, side by side with their baselines
	@$(BIN)/python -m benchmarks $(ARGS)

deep: $(VENV)/.test ## what is too long for CI: soaks, mutations, upstream suites
	@$(BIN)/python -m pytest -m deep --timeout 3600 $(ARGS)

demo: $(VENV)/.demo ## the leak and the cure, on real servers, in a minute; cleans up after itself
	@$(BIN)/python examples/konstruct/demo.py $(ARGS)

serve: $(VENV)/.demo ## the same services, staying up until Ctrl-C
	@$(BIN)/python examples/konstruct/demo.py --serve $(ARGS)

test-wheel: $(VENV)-wheel/.ready ## the built wheel, without src: unit tests and the core of the others
	@TENANTRY_REQUIRE_SERVICES=1 $(VENV)-wheel/bin/python -m pytest --core -n $(JOBS) $(ARGS)

test-lowest: $(VENV)-lowest/.ready ## the edges on the lowest versions that pyproject.toml names
	@$(VENV)-lowest/bin/python -m pytest -n $(JOBS) -o filterwarnings= $(EDGES) $(ARGS)

package: $(VENV)/.dev ## build the wheel and check it alone in fresh environments
	@$(BIN)/python scripts/check_package.py $(ARGS)

clean: ## remove everything that the targets made
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1) what for, $(2) requirements, $(3) folder. uv installs several times faster; where it cannot be
# had, or cannot reach the index, pip does it.
define INSTALL
	@echo "Setting up $(3) for $(1) with $$($(PYTHON) --version), once ..." >&2
	@test -x $(3)/bin/python || $(PYTHON) -m venv $(3)
	@$(3)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@{ $(3)/bin/python -m pip install --quiet --disable-pip-version-check uv \
		&& UV_SYSTEM_CERTS=1 $(3)/bin/uv pip install --quiet --python $(3)/bin/python $(2); } 2>/dev/null \
		|| $(3)/bin/python -m pip install --quiet --disable-pip-version-check $(2)
	@touch $@
endef
comma := ,

$(VENV)/.demo: pyproject.toml
	$(call INSTALL,the demo,-e ".[celery$(comma)redis$(comma)sqlalchemy]" --group demo,$(VENV))

$(VENV)/.test: pyproject.toml
	$(call INSTALL,the tests,-e ".[all]" --group test,$(VENV))

$(VENV)/.dev: pyproject.toml
	$(call INSTALL,development,-e ".[all]" --group dev,$(VENV))

$(VENV)/.bench: pyproject.toml
	$(call INSTALL,benchmarks,-e ".[all]" --group test --group bench,$(VENV))

CORE = */tenantry/context.py,*/tenantry/errors.py,*/tenantry/frames.py,*/tenantry/ids.py,*/tenantry/keys/*,*/tenantry/propagation.py,*/tenantry/steps.py,*/tenantry/testing/*
CORE_TESTS = tests/keys tests/testing tests/properties/test_context.py tests/properties/test_keys.py \
	$(patsubst %,tests/test_%.py,context errors frames ids propagation steps)

# What stands on other packages; their own warnings are those of versions that were new then.
EDGES = tests/integrations tests/test_resolvers.py tests/test_lookup.py tests/test_propagation.py tests/test_cli*.py

$(VENV)-lowest/.ready: pyproject.toml scripts/lowest.py
	@mkdir -p $(VENV)-lowest
	@$(PYTHON) scripts/lowest.py > $(VENV)-lowest/lowest.txt
	$(call INSTALL,the lowest versions,-e ".[all]" --group test -c $(VENV)-lowest/lowest.txt,$(VENV)-lowest)

# Built anew each time: a wheel of yesterday's source would pass today.
.PHONY: $(VENV)-wheel/.ready
$(VENV)-wheel/.ready:
	@rm -rf $(VENV)-wheel
	@$(PYTHON) -m venv $(VENV)-wheel
	@$(VENV)-wheel/bin/python -m pip wheel --quiet --no-deps -w $(VENV)-wheel/dist .
	$(call INSTALL,the wheel,"$$(echo $(VENV)-wheel/dist/*.whl)[all]" --group test,$(VENV)-wheel)
