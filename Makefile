# Every target makes .venv when it is missing or older than what it is made from: the demo what users need, the
# others also what the tests need: QNN's simulator, a cross-compiler and a browser's driver take 0.8 GB.
PYTHON ?= python3
BIN := .venv/bin

BASELINE ?= HEAD~1

.PHONY: demo test test-slow faults lint docs bench check-latency clean

# Modules are compiled when they are imported: most never are.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[all]'
	touch $@

.venv/.dev: .venv/.ready
	$(INSTALL) '.[dev]'
	touch $@

demo: .venv/.ready
	$(BIN)/hwnas compress efficientnet_b0 --device cpu --data digits --preset quick --out runs/demo

# Two processes with a thread each: two threads in each of them wait for one another on two cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2

test: .venv/.dev
	$(PYTEST) --dist loadfile

test-slow: .venv/.dev
	$(PYTEST) --dist worksteal -m slow

# Hours: every test of it has a case that `make test` or `make test-slow` runs.
faults: .venv/.dev
	$(BIN)/pytest -m "not hardware" tests/faults

lint: .venv/.dev
	$(BIN)/ruff format --check hwnas tests benchmarks examples docs
	$(BIN)/ruff check hwnas tests benchmarks examples docs
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.dev
	$(BIN)/mkdocs build

# Studies take hours and go on where they were stopped; each is started by itself.
STUDIES = gate_power predictor_quality filter_front equal_latency finetune_curves search_latency against_commit task_proofs

bench: .venv/.dev
	set -e; for file in $(filter-out $(STUDIES:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file; done

check-latency: .venv/.dev
	$(BIN)/hwnas check run benchmarks.checked:mobilenet --baseline $(BASELINE) --device cpu --threshold 10%

clean:
	rm -rf .venv runs dist site
