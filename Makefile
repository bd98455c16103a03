# The commands of this project; `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
MANAGE := $(BIN)/python manage.py
PEER := .development/peer
NPM_FOLDER := accounts/tests/better_auth
# Tests that mostly wait, for a browser, a server or each other: beside the rest they cost little. The last test of a
# run searches what that run has said.
WAITING := browser or torture or waits
LAST := chatstore/tests/test_no_credentials.py
PYTEST := $(BIN)/python -m pytest

.PHONY: help run dev test check fix migrate migrate-create migrate-rollback screenshots lock bench torture clean

help: ## What can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

run: .venv/installed migrate ## Install, migrate, seed in development, and serve
	@$(MANAGE) welcome
	@exec $(BIN)/gunicorn -c python:chatstore.gunicorn chatstore.wsgi

dev: .venv/installed migrate ## The same, starting again at every change of the code
	@$(MANAGE) welcome
	@exec $(BIN)/gunicorn -c python:chatstore.gunicorn --reload chatstore.wsgi

test: .venv/installed-dev $(NPM_FOLDER)/node_modules/.installed ## Every test, on SQLite and on a PostgreSQL started for it
	@mkdir -p .development; echo "Four runs beside each other; what the other three say comes last."; \
	{ $(PYTEST) --database postgresql chatstore accounts; failed=$$?; \
		$(PYTEST) --database postgresql -m "$(WAITING) or last" conversations $(LAST); exit $$((failed | $$?)); \
	} >.development/postgresql-tests.log 2>&1 & postgresql=$$!; \
	$(PYTEST) --database sqlite -m "$(WAITING) or last" >.development/waiting-tests.log 2>&1 & waiting=$$!; \
	$(PYTEST) --database sqlite -m "not ($(WAITING))" >.development/sqlite-tests.log 2>&1 & sqlite=$$!; \
	$(PYTEST) --database postgresql -m "not ($(WAITING))" conversations torture $(LAST); failed=$$?; \
	wait $$postgresql; failed=$$((failed | $$?)); cat .development/postgresql-tests.log; \
	wait $$waiting; failed=$$((failed | $$?)); cat .development/waiting-tests.log; \
	wait $$sqlite; failed=$$((failed | $$?)); cat .development/sqlite-tests.log; exit $$failed

check: .venv/installed-dev ## Lint, types, missing migrations and those that lock, drift of what is generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MANAGE) makemigrations --check --dry-run
	$(MANAGE) generated --check
	$(BIN)/python -m torture.migration_lint

fix: .venv/installed-dev ## Format, and write again what is generated
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(MANAGE) generated

migrate: .venv/installed ## Bring the database to the newest schema, without a statement timeout
	@DB_STATEMENT_TIMEOUT=0 $(MANAGE) migrate --noinput --verbosity 0

migrate-create: .venv/installed ## Write the migrations that the models need (NAME=add_something)
	$(MANAGE) makemigrations $(if $(NAME),--name $(NAME))

migrate-rollback: .venv/installed ## Back to an earlier migration (APP=conversations TO=0001, or TO=zero)
	DB_STATEMENT_TIMEOUT=0 $(MANAGE) migrate $(APP) $(TO)

screenshots: .venv/installed-dev ## Take the pictures of docs/images again (needs Chromium)
	$(BIN)/python -m docs.screenshots

bench: .venv/installed-dev $(PEER)/installed ## Measure the API beside a FastAPI service (BENCH="--help" for more)
	@exec $(BIN)/python -m benchmarks.api $(BENCH)

torture: .venv/installed-dev ## Try to break it: kills, retries, hostile input, slow databases (TORTURE="--help" for more)
	@exec $(BIN)/python -m torture $(TORTURE)

lock: .venv/installed-dev ## Choose versions again, with hashes
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" requirements-dev.in --constraint requirements.txt \
		--output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" requirements-openai-agents.in --constraint requirements-dev.txt \
		--output-file requirements-openai-agents.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" benchmarks/requirements.in --output-file benchmarks/requirements.txt

clean: ## Remove the environment and the caches; the database stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv --clear .venv >/dev/null || { rm -rf .venv; \
		echo "Python cannot make environments here. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/installed: .venv/bin/pip requirements.txt
	@echo "Installing into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-openai-agents.txt
	@echo "Installing the tools of the tests into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-openai-agents.txt
	@touch $@

# The FastAPI service that the benchmark compares with has an environment of its own.
$(PEER)/installed: benchmarks/requirements.txt
	@echo "Installing the peer of the benchmark into $(PEER) ..."
	@mkdir -p $(dir $(PEER)) && $(PYTHON) -m venv --clear $(PEER)
	@$(PEER)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	@touch $@

# Whatever goes wrong here, the tests go on: those that need it are skipped and say so.
$(NPM_FOLDER)/node_modules/.installed: $(NPM_FOLDER)/package-lock.json
	@rm -f $@
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
		echo "The real better-auth will NOT be tested: that needs node and npm."; \
	else \
		echo "Installing the real better-auth for the tests ..."; \
		(cd $(NPM_FOLDER) && npm ci --silent --ignore-scripts --engine-strict --no-audit --no-fund \
			--fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-timeout=15000 && \
			touch node_modules/.installed) || \
			echo "The real better-auth will NOT be tested: npm ci in $(NPM_FOLDER) fails, and says why."; \
	fi
