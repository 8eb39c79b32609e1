# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
RUNS ?= runs

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench docs gallery smoke clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Expected Python 3.11, 3.12 or 3.13 on the PATH; found none of them." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)  ## Train, compress, measure, explain and audit a model on UCI Adult: one page
	$(BIN)/zoo audit mlp --data adult --runs $(RUNS)

test: $(READY)  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: $(READY)  ## Run the tests, the slow ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)  ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## Measure a quick suite with MLPerf LoadGen and print a table
	$(BIN)/zoo benchmark --runs $(RUNS)

docs: $(READY)  ## Write the generated blocks of the README again
	$(BIN)/python tests/readme_blocks.py --write

GALLERY := reports/gallery/mlp-adult
gallery: $(READY)  ## Make the committed example report and its picture again (needs chromium)
	folder=$$(mktemp -d) && mkdir -p $(GALLERY) \
		&& cd $$folder && $(CURDIR)/$(BIN)/zoo audit mlp --data adult --name mlp-adult \
			| sed "s#$$folder/##" > $(CURDIR)/$(GALLERY)/printed.txt \
		&& cp runs/mlp-adult/report.html runs/mlp-adult/report.md $(CURDIR)/$(GALLERY)/ \
		&& chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
			--disable-background-networking --user-data-dir=$$folder/browser --window-size=1280,1500 \
			--screenshot=$(CURDIR)/$(GALLERY)/report.png file://$$folder/runs/mlp-adult/report.html \
		&& rm -rf $$folder

smoke: $(READY)  ## A short demo in a folder that is thrown away
	runs=$$(mktemp -d) && $(BIN)/zoo audit mlp int8 --data adult --epochs 2 --seconds 0.3 --runs $$runs \
		&& ls -l $$runs/latest/report.html && rm -rf $$runs

clean:  ## Remove what the other targets made, runs aside
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
