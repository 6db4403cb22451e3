# Hudur. `make run` serves the demo; `make test` proves the tree. Both set up whatever they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The distribution's interpreter where it can make a venv: it is built with profile-guided optimization (docs/decisions/0043).
PYTHON ?= $(shell for python in /usr/bin/python3.12 /usr/bin/python3.11; do \
	$$python -c 'import ensurepip, venv' 2>/dev/null && echo $$python && exit; done; echo python3)
PY := .venv/bin/python
SCHOOL_DAYS ?= 100000
MINUTES ?= 300
SESSIONS ?= 480000
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
PWA_SOURCES := $(shell find pwa/src -type f 2>/dev/null) pwa/build.mjs pwa/tsconfig.json

.PHONY: help run setup test lint types unit pwa-test browser-ready postgres-ready browsers bench morning vectors saboteurs campaign lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: setup ## Serve the demo: three schools, links ready to open (PORT=8000)
	.venv/bin/hudur demo

setup: .venv/.ready pwa/dist/build.json ## Make .venv (with .venv/bin/hudur) and build the phone's page

# The built page is part of the distribution, so it comes first. Debian splits venv from python3; ask apt only where it is missing.
.venv/.ready: pyproject.toml requirements.lock | pwa/dist/build.json
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --constraint requirements.lock --editable . --group dev
	touch $@

pwa/node_modules/.ready: pwa/package.json pwa/package-lock.json
	cd pwa && npm ci --no-audit --no-fund --loglevel=error
	touch $@

pwa/dist/build.json: pwa/node_modules/.ready $(PWA_SOURCES)
	cd pwa && node build.mjs
	touch $@

browser-ready: ## Install Chromium (Debian's package) where it is missing
	command -v chromium >/dev/null || { $(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq chromium fonts-dejavu-core; }

postgres-ready: ## Install PostgreSQL (Debian's package) where it is missing; the tests make their own clusters
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { $(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq postgresql; }

test: setup browser-ready postgres-ready lint types pwa-test unit ## Everything that must hold

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types:
	.venv/bin/mypy
	cd pwa && npm run --silent check

pwa-test: pwa/node_modules/.ready
	cd pwa && npm test --silent

unit:
	PYTHONHASHSEED=0 .venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-fail-under=95

browsers: setup ## Smoke of capture, offline restart and sync on Chromium 64, 109, 138 and current
	.venv/bin/pytest tests/browser -m oldbrowser --override-ini addopts=

vectors: .venv/.ready ## Write tests/vectors again
	$(PY) tests/vectors/produce.py

saboteurs: setup ## Plant each bug of the list and count the seeds until it is found; writes docs/saboteurs.md
	$(PY) -m tests.simulator.saboteurs --write docs/saboteurs.md

# Each part tells what it found and ends with 1 on any violation; the last goes on where it was stopped.
campaign: setup ## Long campaigns: kill -9, power cuts, simulated terms (SCHOOL_DAYS=100000 MINUTES=300)
	$(PY) -m tests.process.campaign --kills 500 --seed 1
	$(PY) -m tests.power
	mkdir -p build
	$(PY) -m tests.simulator.campaign --out build/campaign.jsonl --school-days $(SCHOOL_DAYS) --minutes $(MINUTES)

bench: setup browser-ready ## Run every benchmark (about 40 minutes) and write docs/performance.md
	$(PY) -m bench

morning: setup ## The national morning, 480,000 sessions, then three times capacity (SESSIONS=480000; docs/morning.md)
	$(PY) -m bench.morning --sessions $(SESSIONS) --store-result

lock: ## Pin what is installed now
	.venv/bin/pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf .venv pwa/node_modules pwa/dist .demo build
