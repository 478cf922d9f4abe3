# Each target makes the virtual environment it needs. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo serve test check reference bench clean
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
READ_MODELS ?= postgres
BIN := .venv/bin

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/ready ## Serve the example ledger with a generated sample (PORT=8000, READ_MODELS=postgres|elasticsearch)
	@exec $(BIN)/ledger demo --port $(PORT) --read-models $(READ_MODELS)

serve: .venv/ready ## Serve the example ledger (CQRSKIT_* settings)
	@exec $(BIN)/ledger serve

test: .venv/ready ## Run all tests on real servers, unit tests first
	$(BIN)/pytest

check: .venv/ready ## Lint, format, types, direction of imports, and the contents of the wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m build --no-isolation --outdir build/dist . > /dev/null
	@$(BIN)/python -m zipfile -l build/dist/*.whl | grep -q 'cqrskit/migrations/0001' || { echo "the wheel lacks the migrations" >&2; exit 1; }

reference: .venv/ready ## Write docs/reference/http-api.md anew from the ledger's OpenAPI document
	@$(BIN)/python -m tests.unit.http_reference

bench: .venv/ready ## Measure, beside peers and limits (QUICK=1 for a short run, ONLY=group for one group)
	@$(BIN)/python -m tests.benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

clean: ## Remove everything that was made, and the demo's data
	rm -rf .venv build .cqrskit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
