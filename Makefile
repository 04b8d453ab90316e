# What a developer needs. `make test` is also what CI runs.
PYTHON = .venv/bin/python

.PHONY: test test-fast lint bench
.DEFAULT_GOAL := test

# Installs what the tests need besides what ./forensic installs for itself.
.venv/.dev-ready: requirements-dev.lock pyproject.toml tests/packages.txt
	./forensic --yes --version
	sh tests/install-packages
	$(PYTHON) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

test: .venv/.dev-ready
	$(PYTHON) -m pytest tests

# No guest: seconds.
test-fast: .venv/.dev-ready
	$(PYTHON) -m pytest tests -m "not guest"

lint: .venv/.dev-ready
	$(PYTHON) -m pytest tests/style

bench: .venv/.dev-ready
	$(PYTHON) -m tests.bench
	$(PYTHON) -m tests.bench.containers
	$(PYTHON) -m tests.bench.layers
	$(PYTHON) -m tests.bench.checks
