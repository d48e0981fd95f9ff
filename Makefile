# Two commands: `make demo` runs the main job, `make test` checks everything that is quick.
# Both use one virtual environment, made on first use and kept while pyproject.toml stays as it is.

PYTHON ?= python3
VENV ?= .venv
# Blender's module holds NumPy below 2, so it has an environment of its own, which takes the rest from the first.
BLENDER ?= .venv-blender
BIN := $(VENV)/bin
# Test files that are run at the same time, each on one core.
AT_ONCE ?= 2
# Folder of your own images for `make demo DATA=path/to/images`; empty: images drawn on the spot.
DATA ?=
# Where the demo puts what it makes.
OUT ?= demo

.PHONY: demo test test-all lint clean help

help:
	@echo "make demo [DATA=images] [OUT=demo]   train, compare and report, in minutes"
	@echo "make test                            lint, types, import contracts, tests"
	@echo "make test-all                        the same, and the slow tests"

demo: $(VENV)/.installed
	$(BIN)/selfsight demo $(if $(DATA),"$(DATA)") --out "$(OUT)"

test: lint $(BLENDER)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder
	SELFSIGHT_REQUIRE_BLENDER=$$($(BIN)/python -c 'import sys; print(int(sys.version_info[:2] in ((3, 11), (3, 13))))') \
		$(BLENDER)/bin/python -m pytest -k blender tests/test_backends.py tests/test_blender.py tests/test_blender_scenery.py \
		tests/test_render_guide.py tests/test_places_guide.py

test-all: test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("selfsight needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(BLENDER)/.installed: pyproject.toml $(VENV)/.installed-dev
	$(BIN)/python -m venv $(BLENDER)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(BLENDER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	$(BLENDER)/bin/python -m pip install --quiet --editable '.[dev,synth]'
	touch $@

clean:
	rm -rf $(VENV) $(BLENDER) demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
