# `make tour` and `make test` do everything: set-up comes first, and is done in a moment when nothing changed.
# PYTHON=/path/to/python3.11 names the interpreter, ARGS='…' adds words to pytest's or bookinfo-lab's command line.

.DEFAULT_GOAL := help
.PHONY: help setup tour lab notebooks recordings test test-cluster lint lock resolve clean

VENV := .venv/bin
ARGS :=
UV = $(or $(shell command -v uv 2>/dev/null),$(VENV)/uv)
# glibc >= 2.31 (Debian 11, Ubuntu 20.04) on the two Linux machines that have an Envoy wheel.
PLATFORMS := x86_64-manylinux_2_31 aarch64-manylinux_2_31 aarch64-apple-darwin x86_64-pc-windows-msvc
PYTHONS := 3.11 3.14

export PYTHON

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1  \t/p' Makefile

setup: ## .venv with everything in it, and the Debian packages where you may install them
	@sh tools/setup.sh

tour: setup ## every notebook on both meshes and a recording, as HTML in build/tour; one request and its hops
	@$(VENV)/bookinfo-lab tour $(ARGS)

lab: setup ## JupyterLab on the first notebook
	@$(VENV)/bookinfo-lab lab $(ARGS)

notebooks: setup ## the learner's notebooks again, cut from notebooks/solutions
	@$(VENV)/python -m bookinfo_lab.teach.cut $(ARGS)

recordings: setup ## the bundled recordings again, from fresh sandboxes
	@$(VENV)/python tools/make_recordings.py $(ARGS)

test: setup ## every test that this machine can run; a skipped one says why
	@$(VENV)/python -m pytest $(ARGS)

test-cluster: setup ## the tests that need a Kubernetes cluster, on the one of KUBECONFIG; without one it says so
	@if [ -n "$$BOOKINFO_LAB_TEST_CLUSTER" ]; then export BOOKINFO_LAB_REQUIRE=cluster; \
	elif [ -n "$$KUBECONFIG" ] || [ -e "$$HOME/.kube/config" ]; then \
		export BOOKINFO_LAB_TEST_CLUSTER=$(CURDIR)/tests/cluster/own; \
	else echo "test-cluster: no cluster to test on; set KUBECONFIG to one where you may make namespaces and roles" >&2; \
		exit 2; fi; \
	$(VENV)/python -m pytest tests/cluster $(ARGS)

lint: setup ## ruff and mypy
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@# Scripts that import their neighbours by bare name are checked where they lie.
	@for place in tools bookinfo_lab/sandbox/bookinfo; do \
		(cd $$place && $(CURDIR)/$(VENV)/mypy --config-file= --explicit-package-bases --strict *.py) || exit 1; \
	done

lock: setup ## requirements.lock again from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(UV) pip compile --quiet --universal --all-extras --generate-hashes --custom-compile-command 'make lock' \
		--output-file requirements.lock $(ARGS) pyproject.toml

resolve: setup ## check that ranges and lock have wheels on every platform and Python we promise
	@for platform in $(PLATFORMS); do for python in $(PYTHONS); do \
		for what in pyproject.toml requirements.lock; do \
			$(UV) pip compile --quiet --only-binary :all: --python-platform $$platform --python-version $$python \
				--no-header $$what >/dev/null || { echo "$$what: $$platform, Python $$python: no"; exit 1; }; \
		done; echo "$$platform, Python $$python: pyproject.toml and requirements.lock resolve"; \
	done; done
	@$(UV) pip compile --quiet --only-binary :all: --python-platform x86_64-manylinux_2_31 --python-version 3.11 \
		--resolution lowest-direct --no-header pyproject.toml >/dev/null && echo "the lowest versions of the ranges resolve"

clean: ## take out .venv and every cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
