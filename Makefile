# What a developer or a CI machine runs. All paths are relative, so the checkout's folder may have a space in its name.

# Another interpreter: make PYTHON=python3.13 test. More test processes: make JOBS=8 test.
JOBS ?= 2
ROUNDS ?= 3
FUZZ_SECONDS ?= 120
USERS ?= 50

VENV := .venv
PY := $(VENV)/bin/python
TYPED := $(wildcard octoroute/*.pxd octoroute/*/*.pxd)
CORES := $(wildcard octoroute/*.pyx) $(TYPED) $(wildcard $(TYPED:.pxd=.py))
STUBTEST := --mypy-config-file pyproject.toml --ignore-disjoint-bases --ignore-unused-allowlist
STUBTEST += --allowlist tests/stubtest-allowlist.txt
MODULES := $(patsubst octoroute/%.pyx,octoroute.%,$(wildcard octoroute/*.pyx))

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' Makefile | expand -t 14

.PHONY: demo
demo: $(VENV)/run ## start octoroute in front of simulated model servers; Ctrl-C ends it
	@exec $(PY) -m octoroute demo

.PHONY: test
test: $(VENV)/test ## run the tests against simulated servers
	$(PY) -m pytest -n $(JOBS) --dist worksteal

.PHONY: test-real
test-real: $(VENV)/test ## run the tests against a real llama.cpp (compiled once, about 10 minutes)
	$(PY) -m tests.end_to_end.real.install
	$(PY) -m tests.end_to_end.real.install_js
	$(PY) -m pytest -m real tests/end_to_end/real

.PHONY: test-long
test-long: $(VENV)/test ## run the tests that take minutes: a hundred upgrades under live streams
	$(PY) -m pytest -s -m long

.PHONY: check
check: $(VENV)/check ## lint, types, stubs, imports
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	PATH="$$PWD/$(VENV)/bin:$$PATH" cython-lint octoroute
	$(PY) -m mypy
	$(if $(MODULES),$(PY) -m mypy.stubtest $(STUBTEST) $(MODULES))
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m pytest -q tests/test_import_contract.py
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/*; else echo "no shellcheck here: the scripts are not checked"; fi

.PHONY: format
format: $(VENV)/check ## format the code, and mend what the linter can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

.PHONY: coverage
coverage: $(VENV)/test ## run the tests and count the lines they reach, those of .pyx files too
	scripts/variant coverage -n $(JOBS)

.PHONY: sanitize
sanitize: $(VENV)/test ## run the tests with the cores compiled for ASan and UBSan
	scripts/variant sanitize -n $(JOBS)

.PHONY: fuzz
fuzz: $(VENV)/fuzz ## let libFuzzer look for bytes that break the compiled readers: make fuzz FUZZ_SECONDS=120
	scripts/variant fuzz $(FUZZ_SECONDS)

.PHONY: bench-check
bench-check: $(VENV)/run ## compare instructions per request and per chunk with the committed ones (needs valgrind)
	$(PY) -m benchmarks.instructions

.PHONY: bench-micro
bench-micro: $(VENV)/run ## time selection, routing, parsing, live state and records, in nanoseconds a call
	$(PY) -m benchmarks.micro

.PHONY: bench-compare
bench-compare: $(VENV)/run ## measure octoroute beside nginx, haproxy and what else is installed (30 minutes; ROUNDS=3)
	$(PY) -m benchmarks.compare --rounds $(ROUNDS)

bench-locust: SECONDS ?= 30
.PHONY: bench-locust
bench-locust: $(VENV)/bench ## a mix of users by locust: make bench-locust USERS=50 SECONDS=30
	$(PY) -m benchmarks.load --users $(USERS) --seconds $(SECONDS)

.PHONY: bench-scale
bench-scale: $(VENV)/run ## measure one worker with 1,000 endpoints, 10,000 idle clients, 5,000 slow streams
	$(PY) -m benchmarks.scale

# A shorter or longer soak: make SECONDS=60 soak.
soak: SECONDS ?= 600
.PHONY: soak
soak: $(VENV)/run ## a mixed load with random faults for SECONDS (600), and what is left of it
	$(PY) -m benchmarks.soak --seconds $(SECONDS)

.PHONY: reliability
reliability: $(VENV)/run ## run every fault through a gateway, and write the table of docs/reliability.md
	$(PY) docs/reliability.py

.PHONY: clean
clean: ## remove all that was built here (a cached llama.cpp stays)
	rm -rf $(VENV) build dist octoroute/*.so octoroute/*/*.so *.egg-info

# Each step leaves a mark in .venv and is done again when what it is made of is newer than the mark. `complete` is looked
# at in every run, but its time changes only when the venv is made anew.
.PHONY: FORCE
$(VENV)/complete: FORCE
	@scripts/venv make '$(PYTHON)'

$(VENV)/run: pyproject.toml setup.py $(CORES) $(VENV)/complete
	@scripts/venv fill run

$(VENV)/test: pyproject.toml $(VENV)/complete | $(VENV)/run
	@scripts/venv fill test

$(VENV)/fuzz: pyproject.toml $(VENV)/complete | $(VENV)/test
	@scripts/venv fill fuzz

$(VENV)/bench: pyproject.toml $(VENV)/complete | $(VENV)/run
	@scripts/venv fill bench

$(VENV)/check: pyproject.toml $(VENV)/complete | $(VENV)/test
	@scripts/venv fill check
