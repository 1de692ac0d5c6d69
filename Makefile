# Needs git, make and a python3 of 3.11 or newer; everything else is put into a virtual environment here.
#
#   make demo     trains the scenes and measures what comes out: runs/scenes/report.html
#   make test     lint, format, tests
#   make setup    the virtual environment alone
#   make clean    removes the virtual environment and caches, not the runs
#
# make PYTHON=/usr/bin/python3.12 … takes another interpreter, make VENV=DIR … another place.

VENV ?= .venv
PYTHON ?=
RUN ?= runs/scenes
BIN := $(VENV)/bin
INSTALLED := $(VENV)/install_seconds

# Memory in huge pages, and none given back between two steps, which ask for the same again: on two cores steps of the
# tokenizer and the prior are 1.3 times as fast (docs/results.md). Of no effect without glibc.
HUGE_PAGES := glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967295:glibc.malloc.trim_threshold=8589934592

.PHONY: setup demo test clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py
	@began=$$(date +%s); \
	python=$$(scripts/find_python 3.11 $(PYTHON)) || exit 1; \
	echo "installing into $(VENV) with $$python; this takes a minute or more"; \
	"$$python" -m venv $(VENV) && \
	$(BIN)/python -m pip install --quiet --upgrade pip && \
	$(BIN)/python -m pip install --quiet -e '.[dev]' && \
	echo $$(( $$(date +%s) - began )) > $@ && \
	echo "installed in $$(cat $@) s"

demo: export GLIBC_TUNABLES = $(HUGE_PAGES)
demo: setup
	$(BIN)/python -m launch.train --config=configs/scenes.py --workdir=$(RUN)
	$(BIN)/python -m launch.evaluate --workdir=$(RUN) --suite=all --prompts=256 --install_seconds=$$(cat $(INSTALLED))

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache
