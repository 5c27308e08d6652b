# `make demo` and `make test` need nothing but python3, git and make; both set everything up first.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup browser stores demo test soak cluster-test lint audit up down clean

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
PYTHON := .venv/bin/python

help:    ## list these targets
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' Makefile | expand -t 22

setup:   ## create .venv from requirements.lock
	@infra/setup.sh

browser:
	@infra/browser.sh

stores:
	@infra/services.sh || echo "stores: the tests that need them will be skipped" >&2

demo: setup ## run the main job on the embedded world with Prefect, DVC and MLflow, and print the table
	@$(PYTHON) -m flows.demo

test: setup browser stores ## run the tests
	@infra/test.sh

soak: setup browser stores ## run the long tests too: full fuzzing, faults, large data
	OMP_NUM_THREADS=1 COTAM_FAULTS=.cotam/faults.json $(PYTHON) -m pytest -q -m 'not cluster'

cluster-test: setup stores ## run the flow over four machines in network namespaces, and kill one (skipped without root)
	OMP_NUM_THREADS=1 COTAM_FAULTS=.cotam/faults.json $(PYTHON) -m pytest -q -m cluster -s -rs

lint: setup ## check the style, and that dvc.yaml says what the code says
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pipelines.generate --check

audit: setup ## compare requirements.lock with known vulnerabilities (needs the network)
	PATH=$(CURDIR)/.cotam/bootstrap/bin:$$PATH $(PYTHON) infra/audit.py $(if $(WHERE_REACHABLE),--where-reachable)

up: setup ## start the Prefect server, MLflow and a worker, and leave them running
	@$(PYTHON) -m flows.services up

down: setup ## stop them
	@$(PYTHON) -m flows.services down

clean:   ## remove caches and half-made work; results, runs and .venv stay
	rm -rf .cotam/work .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
