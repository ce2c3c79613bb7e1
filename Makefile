# `make demo` and `make test` each do all the set-up by themselves; a second run goes straight to work.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
PY := .venv/bin/python
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.PHONY: help setup demo test check send up bench-hop bench-peers bench-smoke bench-spike bench-scale bench-venv lock-bench bench-latency bench-capacity bench-tracing bench-recovery bench-judgement bench-analytics restart-drill drill-scale image-steps \
  drill drill-restore drill-upgrade drill-region \
  chaos chaos-short chaos-setup check-delivery check-delivery-short delivery-setup check-analytics check-analytics-short check-doors check-doors-short fuzz lock clean

help:
	@echo 'make demo         set up, then send 2,000 submissions through the whole road and compare with what arrived'
	@echo 'make test         set up, then all tests, on a real Kafka and a real ClickHouse'
	@echo 'make up           the stack in the foreground, until Ctrl-C'
	@echo 'make send FILE=mail.eml TO=a@b TENANT=t   one mail through the running stack'
	@echo 'make check        ruff, mypy --strict, layers'
	@echo 'make bench-peers [SHORT=1] [CASES=2k-rsa]   messages a second and CPU beside Postfix with OpenDKIM, Haraka, a plain relay'
	@echo 'make bench-hop    CPU of one hop beside quixstreams, bytewax, stock Faust and the bare client; bench-smoke: a guard, for CI'
	@echo 'make bench-latency, bench-capacity   one mail alone and at rates; as many as go; bench-tracing: what tracing costs'
	@echo 'make bench-spike, bench-scale [PARTS="tenants size"]   ten times what it can; cost per message as things grow'
	@echo 'make bench-recovery   a million keys after the loss of RocksDB, and after a kill'
	@echo 'make bench-judgement [WRONG=1]   bounces, replies and complaints judged, beside flufl.bounce; what was wrong'
	@echo 'make bench-analytics [EVENTS=20000000]   every named query timed on ClickHouse 18.16 and on chdb'
	@echo 'make restart-drill   the stack killed with -9 in the middle of the demo load'
	@echo 'make drill-restore   tables and blob store lost in the middle of the demo load, blobs back from a copy'
	@echo 'make chaos [SEED=1]   100,000 messages under every fault, three times each; make chaos-short: 10,000, once'
	@echo 'make check-delivery [PARTS="limits speed"]   caps, neighbours, memory, fairness, other mail servers, DKIM, CPU; -short: minutes'
	@echo 'make check-doors [PARTS="rest memory"]   REST, SMTP and webhooks: rates, latency, memory, kills -9 under load; -short: minutes'
	@echo 'make check-analytics [PARTS="exactness ingest"]   every event in ClickHouse whatever is killed; speed, freshness, bytes; -short: minutes'
	@echo 'make fuzz [SECONDS=60]   coverage-guided fuzzing of codec, MIME, feedback, replies and addresses'
	@echo 'make drill-scale [SHORT=1]   load times ten: workers of send 1, 4, 1 by the rule of KEDA; time to drain, pauses, losses'
	@echo 'make drill-upgrade, drill-region [SHORT=1]   every worker by one of the next release; a region lost, another takes over'
	@echo 'make drill [SHORT=1] [ONLY="upgrade region"]   scaling, upgrade, region, restore; one RESULT line'
	@echo 'make image-steps  the steps of the Dockerfile in a clean Debian root, without an engine; a stage started in it (root)'
	@echo 'make lock         requirements.lock from pyproject.toml'
	@echo 'make clean        remove what was built and kept (.venv, .local)'

setup: .local/stamps/jars
	@:

demo: setup
	@$(PY) -m loadtest.demo

test: setup .local/stamps/system-tests .local/stamps/go .local/stamps/prometheus
	@$(PY) -m pytest

check: .local/stamps/python
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

send: setup
	@: $${FILE:?say make send FILE=mail.eml TO=a@b TENANT=t} $${TO:?TO= is missing: the recipient} $${TENANT:?TENANT= is missing}
	@$(PY) -m postroad send "$$FILE" --to "$$TO" --tenant "$$TENANT"

up: setup
	@exec $(PY) -m postroad up

bench-peers: setup
	@deploy/local/system.sh peers .local/delivery/debian
	@$(PY) -m loadtest.peers $(if $(SHORT),--short) $(if $(CASES),--cases $(CASES)) $(if $(SYSTEMS),--systems $(SYSTEMS))

bench-hop: setup .local/stamps/bench-venv
	@$(PY) -m loadtest.bench_hop

bench-smoke: setup
	@$(PY) -m loadtest.bench_smoke

bench-spike: setup
	@$(PY) -m loadtest.bench_spike $(if $(SHORT),--short)

bench-scale: setup
	@$(PY) -m loadtest.bench_scale $(PARTS)

bench-venv: .local/stamps/bench-venv
	@:

lock-bench: .local/stamps/python
	@$(PY) -m pip install --quiet pip-tools
	@$(PY) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
	  --output-file loadtest/peers/requirements.lock loadtest/peers/requirements.in

bench-latency: setup
	@$(PY) -m loadtest.bench_latency
	@$(PY) -m loadtest.bench_rates

bench-capacity: setup
	@$(PY) -m loadtest.bench_capacity

bench-tracing: setup
	@$(PY) -m loadtest.bench_tracing

bench-recovery: setup
	@$(PY) -m loadtest.bench_recovery

bench-judgement: .local/stamps/python
	@$(PY) -m loadtest.judgement $(if $(WRONG),--wrong)

bench-analytics: setup .local/stamps/system-tests
	@$(PY) -m loadtest.analytics.queries $(if $(EVENTS),--events $(EVENTS))

chaos-setup: setup
	@deploy/local/system.sh chaos
	@$(PY) -m loadtest.chaos.proxy

chaos: chaos-setup
	@$(PY) -m loadtest.chaos $(if $(SEED),--seed $(SEED))

chaos-short: chaos-setup
	@$(PY) -m loadtest.chaos --messages 10000 --rounds 1 --rate 26 $(if $(SEED),--seed $(SEED)) $(if $(SLOWER),--slower $(SLOWER))

delivery-setup: setup
	@deploy/local/system.sh delivery .local/delivery/debian || echo 'interop tells what could not be had' >&2

check-delivery: delivery-setup
	@$(PY) -m loadtest.delivery $(PARTS)

check-delivery-short: delivery-setup
	@$(PY) -m loadtest.delivery --short $(PARTS)

check-doors: delivery-setup
	@$(PY) -m loadtest.doors $(PARTS)

check-doors-short: setup
	@$(PY) -m loadtest.doors --short $(PARTS)

check-analytics: setup .local/stamps/system-tests
	@$(PY) -m loadtest.analytics $(PARTS)

check-analytics-short: setup .local/stamps/system-tests
	@$(PY) -m loadtest.analytics --short $(PARTS)

# bash counts SECONDS itself: one of the environment is not meant
FUZZ_SECONDS := $(if $(filter command%,$(origin SECONDS)),$(SECONDS),60)
fuzz: .local/stamps/python
	@$(PY) -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@nice -n 15 $(PY) -m loadtest.fuzz --seconds $(FUZZ_SECONDS)

restart-drill: setup
	@$(PY) -m loadtest.restart

drill-restore: setup
	@$(PY) -m loadtest.drills.restore

drill-scale: setup
	@$(PY) -m loadtest.drills.scale $(if $(SHORT),--short)

drill: setup
	@$(PY) -m loadtest.drills $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY))

drill-upgrade: setup
	@$(PY) -m loadtest.drills.upgrade $(if $(SHORT),--short)

drill-region: setup
	@$(PY) -m loadtest.drills.region $(if $(SHORT),--short)

image-steps: setup
	@deploy/local/system.sh image
	@$(PY) -m deploy.docker.steps

lock: .local/stamps/python
	@$(PY) -m pip install --quiet pip-tools
	@$(PY) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
	  --extra local --extra tracing --extra test --output-file requirements.lock pyproject.toml
	@$(PY) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
	  --constraint requirements.lock --extra tracing --output-file deploy/docker/requirements.lock pyproject.toml
	@$(PY) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
	  --allow-unsafe --output-file deploy/docker/tools.lock deploy/docker/tools.in

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

.local/stamps/go: deploy/local/system.sh
	@mkdir -p $(@D)
	@deploy/local/system.sh go .local/bin
	@touch $@

.local/stamps/prometheus: deploy/local/system.sh
	@mkdir -p $(@D)
	@deploy/local/system.sh prometheus .local/bin
	@touch $@

.local/stamps/python: requirements.lock pyproject.toml .local/stamps/system
	@echo 'Python packages into .venv (once)'
	@[ -x $(PY) ] || "$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.local/stamps/bench-venv: loadtest/peers/requirements.lock .local/stamps/python
	@echo 'quixstreams and bytewax into .local/bench/venv (once)'
	@[ -x .local/bench/venv/bin/python ] || $(PY) -m venv .local/bench/venv
	@.local/bench/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r loadtest/peers/requirements.lock
	@touch $@

.local/stamps/jars: deploy/local/kafka.py .local/stamps/python
	@echo 'Kafka by Maven into .local (once)'
	@$(PY) -m deploy.local.kafka
	@touch $@
