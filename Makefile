# `make demo` and `make test` need only Python. `make help` lists all targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test long check bench soak fuzz docs clean

help:            ## Show this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## ?(.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/.run    ## The demo on this machine, in about 90 seconds: no Docker, no Java
	$(BIN)/failsoft demo
	@echo 'failsoft is in $(BIN). To put it on the PATH: . $(BIN)/activate'

test: $(VENV)/.test   ## Unit, property and integration tests, against a real Kafka
	$(BIN)/python -m pytest

long: $(VENV)/.test   ## The tests that take minutes: three brokers killed and restarted, a network that fails, a soak that must fail
	$(BIN)/python -m pytest --long --numprocesses=0 -m long

check: $(VENV)/.dev .typing   ## ruff, mypy --strict and the test of the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_house.py

bench: $(VENV)/.bench ## failsoft compared with hand-written loops, Faust, FastStream, Quix Streams and Kafka Streams, in one run
	$(BIN)/python -m benchmarks

soak: $(VENV)/.test   ## Workers under a seeded schedule of faults, every event checked: EVENTS= WORKERS= SEED= …
	$(BIN)/python -m tests.system.soak $(if $(EVENTS),--events $(EVENTS)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(BROKERS),--brokers $(BROKERS)) $(if $(SEED),--seed $(SEED)) $(SOAK)

fuzz: $(VENV)/.test   ## Mutated input, checked against rules: make fuzz SECONDS=300 TARGETS="event card" SEED=7
	$(BIN)/python -m tests.fuzz $(TARGETS) --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

docs: $(VENV)/.test   ## Generate the generated pages and schemas again (a test fails when one is stale)
	$(BIN)/python -m docs

# mypy does not follow the mapping of an editable install. These links give it the installed layout.
.typing:
	mkdir -p $@/failsoft
	for folder in schemas topics models workers; do ln -sfn ../../$$folder $@/failsoft/$$folder; done

clean:           ## Remove the environment and the files that tools leave
	rm -rf $(VENV) .typing build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz

# One environment. Each level installs what it needs, and installs it again only when pyproject.toml has changed.
$(VENV)/.run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "failsoft needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[kafka]'
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
