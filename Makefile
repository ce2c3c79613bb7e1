# `make demo` and `make test` each do all the set-up by themselves; a second run goes straight to work.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
PY := .venv/bin/python
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.PHONY: help setup demo test check send up bench-hop bench-latency bench-capacity restart-drill lock clean

help:
	@echo 'make demo         set up, then send 2,000 submissions through the whole road and compare with what arrived'
	@echo 'make test         set up, then all tests, on a real Kafka and a real ClickHouse'
	@echo 'make up           the stack in the foreground, until Ctrl-C'
	@echo 'make send FILE=mail.eml TO=a@b TENANT=t   one mail through the running stack'
	@echo 'make check        ruff, mypy --strict, layers'
	@echo 'make bench-hop    CPU of one hop beside stock Faust and the bare client'
	@echo 'make bench-latency, bench-capacity   one mail alone; as many as go'
	@echo 'make restart-drill   the stack killed with -9 in the middle of the demo load'
	@echo 'make lock         requirements.lock from pyproject.toml'
	@echo 'make clean        remove what was built and kept (.venv, .local)'

setup: .local/stamps/jars
	@:

demo: setup
	@$(PY) -m loadtest.demo

test: setup .local/stamps/system-tests
	@$(PY) -m pytest

check: .local/stamps/python
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

send: setup
	@: $${FILE:?say make send FILE=mail.eml TO=a@b TENANT=t} $${TO:?TO= is missing: the recipient} $${TENANT:?TENANT= is missing}
	@$(PY) -m postroad send "$$FILE" --to "$$TO" --tenant "$$TENANT"

up: setup
	@exec $(PY) -m postroad up

bench-hop: setup
	@$(PY) -m loadtest.bench_hop

bench-latency: setup
	@$(PY) -m loadtest.bench_latency

bench-capacity: setup
	@$(PY) -m loadtest.bench_capacity

restart-drill: setup
	@$(PY) -m loadtest.restart

lock: .local/stamps/python
	@$(PY) -m pip install --quiet pip-tools
	@$(PY) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
	  --extra local --extra test --output-file requirements.lock pyproject.toml

clean:
	@rm -rf .venv .local .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +

export FILE TO TENANT

.local/stamps/system: deploy/local/system.sh
	@mkdir -p $(@D)
	@deploy/local/system.sh run "$(PYTHON)"
	@touch $@

.local/stamps/system-tests: .local/stamps/system
	@deploy/local/system.sh test "$(PYTHON)"
	@touch $@

.local/stamps/python: requirements.lock pyproject.toml .local/stamps/system
	@echo 'Python packages into .venv (once)'
	@[ -x $(PY) ] || "$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.local/stamps/jars: deploy/local/kafka.py .local/stamps/python
	@echo 'Kafka by Maven into .local (once)'
	@$(PY) -m deploy.local.kafka
	@touch $@
