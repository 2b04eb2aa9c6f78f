# Everything a person or CI does here. Only Python (3.11, 3.12 or 3.13) and make are needed beforehand.

PYTHON ?= python3
PORT ?= 8080
MODELS ?= model-repository
REPLICAS ?= 1
DEMO ?= 1
IMAGES ?= stand-ins
PEERS ?= none

LOCAL = env PYTHONPATH=gateway PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m portico.local
DEV = .venv/dev/bin

# Importing TensorFlow writes a file of settings, by default into the home folder.
export KERAS_HOME := $(CURDIR)/.venv/keras

.DEFAULT_GOAL := help
.PHONY: help setup protos run test test-containers check bench profile lock clean

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo '  Settings of run: PORT=8080 MODELS=model-repository REPLICAS=1 DEMO=1. Of all: PYTHON=python3'

setup:  ## Make the environments in .venv and the protobuf modules
	@exec $(LOCAL) setup

protos:  ## Generate the protobuf modules from protos/
	@exec $(LOCAL) setup --for protos

run:  ## Set up, start everything, show a prediction of each kind and serve until Ctrl-C
	@exec $(LOCAL) run --port '$(PORT)' --models '$(MODELS)' --replicas '$(REPLICAS)' --demo '$(DEMO)'

check:  ## Linters, types, layers and unit tests; under a minute, no network once set up
	@$(LOCAL) setup --for check
	$(DEV)/ruff check
	$(DEV)/ruff format --check
	cd gateway && ../$(DEV)/mypy --config-file ../pyproject.toml portico
	cd tf-serving && ../$(DEV)/mypy --config-file ../pyproject.toml tf_serving_standin
	$(DEV)/lint-imports
	$(DEV)/python -m pytest tests/unit --timeout 60

test:  ## All tests that need no containers, against the real processes
	@$(LOCAL) setup --for test
	$(DEV)/python -m pytest tests --ignore=tests/containers

test-containers:  ## The tests of docker-compose.yml in real containers; IMAGES=official: with the real images
	@$(LOCAL) setup --for test
	IMAGES='$(IMAGES)' $(DEV)/python -m pytest tests/containers --timeout 900

bench:  ## Measure how fast it is, and how long swaps take; writes bench/*.md, .json and pictures
	@$(LOCAL) setup --for test
	$(DEV)/python bench/speed.py --peers '$(PEERS)'
	$(DEV)/python bench/swap.py

profile:  ## Flame graphs of the gateway under load, into bench/profiles
	@$(LOCAL) setup --for test
	$(DEV)/python bench/flame_graphs.py

lock:  ## Pin the newest versions that the requirements allow
	@$(LOCAL) setup --for check
	$(LOCK) --python-version 3.11 gateway/requirements.in -o gateway/requirements.lock
	$(LOCK) --python-version 3.11 gateway/requirements-dev.in -c gateway/requirements.lock -o gateway/requirements-dev.lock
	$(LOCK) --python-version 3.11 gateway/development/requirements.in -c gateway/requirements-dev.lock \
	    -o gateway/development/requirements.lock
	$(LOCK) --python-version 3.12 --no-deps gateway/requirements-programs.in -o gateway/requirements-programs.lock
	$(LOCK) --python-version 3.11 --override tf-serving/requirements-override.in tf-serving/requirements.in \
	    -o tf-serving/requirements.lock
	$(LOCK) --python-version 3.11 tests/stack/clients/requirements.in -o tests/stack/clients/requirements.lock
	$(DEV)/python torchserve/lock.py

LOCK = $(DEV)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header

clean:  ## Remove the environments and everything generated
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f gateway/portico/wire/*_pb2.py gateway/portico/wire/*_pb2.pyi gateway/portico/wire/.stamp
	find gateway tf-serving torchserve tests examples -name __pycache__ -prune -exec rm -rf {} +
