# Every target makes .venv when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin

BASELINE ?= HEAD~1

.PHONY: demo test test-slow lint bench check-latency clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.ready
	$(BIN)/hwnas compress efficientnet_b0 --device cpu --data digits --preset quick --out runs/demo
	$(BIN)/python benchmarks/plain_onnxruntime.py runs/demo/reference/model.onnx runs/demo/checkpoints/cpu-knee/model.onnx

test: .venv/.ready
	$(BIN)/pytest

test-slow: .venv/.ready
	$(BIN)/pytest -m slow

lint: .venv/.ready
	$(BIN)/ruff format --check hwnas tests benchmarks
	$(BIN)/ruff check hwnas tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.ready
	set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

check-latency: .venv/.ready
	$(BIN)/hwnas check run benchmarks.checked:mobilenet --baseline $(BASELINE) --device cpu --threshold 10%

clean:
	rm -rf .venv runs dist
