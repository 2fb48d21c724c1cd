# The commands a person types. Each sets up what it needs in .venv (no root), so a fresh clone needs nothing first.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Those scripts of the folder named as the target that do something by themselves.
briefly = for script in $$(grep -l '^if __name__' scripts/$@/*.py); do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

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
	@$(briefly)

replicate: $(VENV)/.test ## the paper's tables, briefly
	@$(briefly)

clean: ## remove what these commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.demo: pyproject.toml scripts/venv
	@scripts/venv $(VENV) '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml scripts/venv
	@scripts/venv $(VENV) '.[demo,cluster]' --group test --group lint --group models
	@touch $@ $(VENV)/.demo
