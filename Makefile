# The commands a person types. Each sets up what it needs in .venv (no root), so a fresh clone needs nothing first.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check bench replicate clean

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## five agents teach each other over MQTT, live
	@$(BIN)/edgeswarm demo $(ARGS)

test: $(VENV)/.test ## the whole test suite (with a real Mosquitto where one is installed)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.test ## format, lint and types, as CI runs them
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/python scripts/golden --check && $(BIN)/python scripts/cli-docs --check

bench: $(VENV)/.test ## every benchmark, briefly
	@for script in scripts/bench/*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

replicate: $(VENV)/.test ## the paper's tables, briefly
	@for script in scripts/replicate/*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

clean: ## remove what these commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.demo: pyproject.toml scripts/venv
	@scripts/venv $(VENV) '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml scripts/venv
	@scripts/venv $(VENV) '.[demo]' --group test --group lint --group models
	@touch $@ $(VENV)/.demo
