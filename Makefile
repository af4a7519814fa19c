# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu machine with Python ≥ 3.11, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SUDO_APT := DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: demo test test-slow soak mutants check formatted lint types imports site generated coverage setup ffmpeg browser clean

demo: ffmpeg $(VENV)/.ready-demo
	$(BIN)/avfuse demo --out demo

# Files are shared out to as many processes as JOBS says. Compiled modules are kept, whatever the environment says: each of
# the hundred processes that the tests start would compile all of avfuse again.
JOBS ?= 2
SUITE := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 25
test: setup
	$(SUITE) -m 'not slow'

# What `make test` leaves out: more of what its tests assert, in sizes that take their time, and more random examples.
test-slow: setup
	AVFUSE_EXAMPLES=200 $(SUITE) -m '(slow or hypothesis) and not walk'

# Hours: every guide typed as it stands, 300 kills, thousands of damaged files, every trick under every suffix, and 200 clips whose clocks are at fault.
soak: test-slow
	$(BIN)/python -m pytest -m walk tests/test_newcomer.py
	AVFUSE_KILLS=300 $(BIN)/python -m pytest --timeout 14400 tests/faults/kills
	AVFUSE_TRICKS=all $(BIN)/python -m pytest tests/faults/test_nothing_gets_out.py
	AVFUSE_ZOO_FILES=3000 $(BIN)/python -m pytest --timeout 14400 tests/faults/test_zoo.py
	$(BIN)/python tests/faults/zoo/soak.py --files 3000 --seed 1
	$(BIN)/python tests/pipeline/media/sweep.py --clips 200 --seed 1

# Minutes: every change of tests/mutants/mutants.toml must make a test fail.
mutants: setup
	$(BIN)/python tests/mutants/try_mutants.py

# What stands behind `check` needs no set-up of its own, so that it also serves before a commit and without a network.
check: setup
	$(MAKE) --no-print-directory formatted lint types imports site

formatted:
	$(BIN)/ruff format --check .

lint:
	$(BIN)/ruff check .

types:
	link=$$(mktemp -d) && trap 'rm -r "$$link"' EXIT && ln -s "$(CURDIR)" "$$link/avfuse" && cd "$$link" && \
		MYPYPATH="$$link" "$(abspath $(BIN))/mypy" --config-file "$(CURDIR)/setup.cfg" \
		--cache-dir "$(CURDIR)/.mypy_cache" -p avfuse

imports:
	$(BIN)/lint-imports --config setup.cfg

# The documentation, to be opened from disk: build/site/index.html. No page without a place, no link that leads nowhere.
site:
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What documents hold that is made from the code, written anew; fails where it was not up to date.
GENERATED := docs/cli.md docs/weights.md docs/sync.svg
generated:
	before=$$(cksum $(GENERATED)) && $(BIN)/python docs/generate_cli.py && $(BIN)/python docs/generate_weights.py && \
		$(BIN)/python docs/draw_sync.py && [ "$$before" = "$$(cksum $(GENERATED))" ]

# The whole suite, with the processes that it starts; a table of what no test runs, and htmlcov/.
coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report

setup: ffmpeg browser $(VENV)/.ready

# What tests and checks need comes on top of what the demo needs, so that a first picture is there soon.
$(VENV)/.ready: $(VENV)/.ready-demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,check,docs]'
	touch $@

$(VENV)/.ready-demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "avfuse needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && $(SUDO_APT) update && $(SUDO_APT) install -y python3-venv; } || \
		{ echo "Python's venv module is missing; install it: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

ffmpeg:
	@command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		  $(SUDO_APT) update && $(SUDO_APT) install -y --no-install-recommends ffmpeg; } || \
		{ echo "ffmpeg and ffprobe are missing; install them: sudo apt-get install ffmpeg" >&2; exit 1; }

# For the tests of the report's pages, which are skipped without it.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		  $(SUDO_APT) update && $(SUDO_APT) install -y --no-install-recommends chromium; } || \
		echo "no Chromium: the tests of report pages are skipped; sudo apt-get install chromium" >&2

clean:
	rm -rf $(VENV) build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov *.egg-info
