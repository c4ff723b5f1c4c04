# make demo   runs the main job on embedded data      make test   passes the quick tests
# Both set up .venv on their own; all they need is Python 3.11, 3.12 or 3.13. PYTHON=... and VENV=... choose others.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := compressor profilers exporters lut

.PHONY: help setup demo serve test test-slow test-all lint types format docs clean
help:
	@echo "make demo | serve | test | test-slow | test-all | lint | types | format | docs | clean"

setup: $(READY)

# Installed again when the dependencies change; a failed installation leaves no stamp.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 was found; install one, or run make PYTHON=/path/to/python." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq -e '.[dev]'
	@touch $@

# A small network is trained on handwritten digits, compressed to 30 % of its multiply-adds, fine-tuned, exported and
# benchmarked. Stopped half-way it goes on where it was; started anew once it is done, it shows the report again. On one
# thread: a network this small gains little from more, and loses much where something else runs beside it.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m compressor --model resnet20_cifar --weights none --data digits --train-epochs 10 --search figs \
		--search-epochs 8 --budget-flops 30% --round-to 8 --finetune-epochs 10 --export onnx --out demo-out
	@echo "Report: demo-out/report.html"

# The service with its page, a worker and a data folder of its own; Ctrl-C stops it. make serve SERVE="--port 9000" passes options.
serve: $(READY)
	$(BIN)/python -m compressor serve $(SERVE)

# Two processes of one thread each; see tests/conftest.py.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --durations 20 -m "not slow and not gpu"

# Tests of a file share what is costly to set up, so that a file goes to one process as a whole.
test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 20 -m "slow or gpu"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation as a site; its examples run with the tests (tests/test_extending.py, tests/graph/test_rules.py).
docs: $(READY)
	rm -rf build/pages && mkdir -p build/pages/docs build/pages/benchmarks
	cp README.md build/pages/index.md
	cp CONTRIBUTING.md CHANGELOG.md SECURITY.md LICENSE build/pages/
	cp docs/*.md docs/*.json build/pages/docs/ && cp --parents benchmarks/*/*.md build/pages/
	$(BIN)/zensical build --strict

clean:
	rm -rf demo-out site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
