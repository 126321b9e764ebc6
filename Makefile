# greenseg: `make help` lists the targets. Packages are installed in .venv only.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format bench docs clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(READY) ## Make .venv with greenseg and the tested versions of its dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[carbon,compress,onnx,plots,search]' --group dev
	@touch $@

demo: $(READY) ## Sweep 2 encoders × 2 precisions on a small phantom and print the Pareto table
	@test -d data/phantom || $(BIN)/greenseg data phantom data/phantom --volumes 9
	$(BIN)/greenseg sweep sweeps/demo.yaml

# Tests that compare joules and CPU seconds with a clock: nothing else runs beside them.
ALONE := tests/energy tests/training/test_record.py

test: $(READY) lint ## Lint, check types, run all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

# Tests without training and without new processes, with a fifth of the random examples.
FAST := tests/settings tests/sweep tests/runs tests/test_yamlfile.py tests/test_failures.py \
	tests/report/test_answer.py tests/report/test_comparison.py tests/report/test_emissions.py \
	tests/report/test_export.py tests/report/test_front.py tests/report/test_results.py tests/report/test_select.py \
	tests/report/test_statistics.py tests/report/test_table.py

test-fast: $(READY) ## Run the tests without new processes, training and network access, in under a minute
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal --hypothesis-profile fast -m 'not process' $(FAST)

lint: $(READY) ## Lint, check types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure overheads against floors; training and data loading against plain loops and MONAI
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m benchmarks

docs: $(READY) ## Generate docs/settings.md and docs/sweep.schema.json from the declaration of the settings
	$(BIN)/python -m greenseg.settings.docs > docs/settings.md
	$(BIN)/python -m greenseg.sweep.schema > docs/sweep.schema.json

clean: ## Remove .venv, runs and data/phantom
	rm -rf $(VENV) runs data/phantom
