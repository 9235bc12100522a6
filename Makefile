# Everything a newcomer or CI does, by name. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PACKAGES := schemas connectors streams sinks tillstream

# The stamps carry the content's checksum: a changed lock is installed, a touched one is not.
LOCKED := .venv/.locked-$(shell cksum < requirements/dev.txt | cut -d ' ' -f 1)
INSTALLED := .venv/.installed-$(shell cat requirements/dev.txt pyproject.toml | cksum | cut -d ' ' -f 1)

.PHONY: help setup demo test mutants coverage check format bench docs lock clean
.PHONY: connectors-up connectors-demo connectors-seed

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv from the hashed lock, with Tillstream in it (done once)

$(LOCKED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tillstream needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "making .venv: pip fetches the locked packages, once; a few minutes on a slow line"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/dev.txt
	@rm -f .venv/.locked-* && touch $@

$(INSTALLED): $(LOCKED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@rm -f .venv/.installed-* && touch $@

demo: setup ## Start Kafka, PostgreSQL and Tillstream, feed them the samples (ONCE=1: and stop)
	$(BIN)/till demo $(if $(ONCE),--once) $(ARGS)

# Seed 004's names for them. With Docker the server is a container, and its files lie in compose/sftp/upload; without, it
# is our own, and they lie in the home. SFTP_HOST, SFTP_PORT, SFTP_USER and SFTP_PASS are heeded by both.
SFTP := $(BIN)/python -m tillstream.embedded.sftp
DOCKER_SFTP := SFTP_PORT=$${SFTP_PORT:-2222} SFTP_PASS=$${SFTP_PASS:-bankpass}
HAS_DOCKER := docker info >/dev/null 2>&1

connectors-up: setup ## Start an SFTP server with a bank's files in it (without Docker: here, until Ctrl-C)
	@if $(HAS_DOCKER); then \
	  docker compose -f compose/sftp.yaml up --detach --wait && $(SFTP) seed --folder compose/sftp/upload && \
	  $(DOCKER_SFTP) $(SFTP) connector > compose/sftp/connector.json && \
	  echo "a connector that reads it: till connector apply -f compose/sftp/connector.json"; \
	else \
	  echo "no Docker daemon answers: our own server serves here, until Ctrl-C"; $(SFTP) serve; \
	fi

connectors-demo: setup ## Put today's bank file, and its checksum, where the SFTP server serves it
	@$(SFTP) daily $$($(HAS_DOCKER) && echo --folder compose/sftp/upload)

connectors-seed: setup ## Put the bank file of seed 004 there
	@$(SFTP) seed $$($(HAS_DOCKER) && echo --folder compose/sftp/upload)

test: setup ## Run every test, on a real Kafka and a real PostgreSQL
	$(BIN)/python -m pytest $(ARGS)

mutants: setup ## Break the delivery path one line at a time, and see that the tests notice (minutes)
	$(BIN)/python -m tests.mutants $(ARGS)

coverage: setup ## Run every test and print how much of the code they reach
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

check: setup ## Lint, format, types, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES) bench)
	$(BIN)/lint-imports

format: setup ## Rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure (QUICK=1: at most five minutes)
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

docs: setup ## Write the generated pages anew
	$(BIN)/python -m tillstream.docs $(ARGS)

lock: ## Resolve the locks anew (needs uv)
	uv pip compile pyproject.toml -o requirements/runtime.txt --quiet $(LOCK_OPTIONS)
	uv pip compile pyproject.toml -o requirements/dev.txt --quiet --all-extras $(LOCK_OPTIONS)

LOCK_OPTIONS = --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade

clean: ## Remove what the tools made; .venv and data stay
	rm -rf dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
