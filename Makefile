# What can be made here; README.md says more. PYTHON and VENV may be given, ARGS goes to the tests.

PYTHON =
VENV = .venv
ARGS =
BIN = $(VENV)/bin

.PHONY: run test floors coverage lint fuzz bench clean

run: $(VENV)/runtime-installed
	@$(BIN)/python contrib/trial

test: $(VENV)/dev-installed
	@$(BIN)/python tests/run.py $(ARGS)

coverage: $(VENV)/dev-installed
	@$(BIN)/python tests/run.py --coverage $(ARGS)
	@$(BIN)/python -m tests.floors

# The floors alone, after tests that ran with --coverage.
floors: $(VENV)/dev-installed
	@$(BIN)/python -m tests.floors

lint: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/run.py tests.test_imports

fuzz: $(VENV)/dev-installed
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/dev-installed
	@$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis _trial_temp*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A changed lock makes the environment anew, so that nothing of the old one stays.
$(VENV)/runtime-installed: requirements.lock setup.cfg pyproject.toml
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(contrib/find-python) || exit 1; \
	echo "making $(VENV) with $$python"; rm -rf $(VENV) && "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/dev-installed: $(VENV)/runtime-installed requirements-dev.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements-dev.lock
	@touch $@
