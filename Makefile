# Two commands do everything on a fresh machine: `make lab` opens the course, `make test` tests it.
# Python 3.11 or newer, make and the package registries are all that is needed.
#
#   make lab         open the course in JupyterLab
#   make test        lint, unit tests, and every notebook with its outputs compared
#   make notebooks   run the notebooks and store their outputs (N=04a runs one chapter)
#   make test-colab  run notebooks with the versions of Colab's runtimes (environments in /tmp)
#   make bench       measure speed ratios, write benchmarks/RESULTS.md
#   make clean       remove the environment and what was built

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
N      ?=
# What JupyterLab opens; its address is printed, for where no browser starts.
START  := /lab/tree/notebooks/00_start_here.ipynb
# Tests ask no hub and use one thread a worker, so that losses agree in every digit.
QUIET  := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Figures are drawn into the page, whatever MPLBACKEND says; unit tests open no window.
FIGURES := MPLBACKEND=module://matplotlib_inline.backend_inline

.PHONY: lab test lint unit notebooks-test test-colab notebooks bench clean
.DEFAULT_GOAL := lab

$(READY): pyproject.toml constraints.txt requirements-offline.txt tools/install.py
	$(PYTHON) tools/install.py $(VENV)
	@touch $@

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=$(START)

test: lint unit notebooks-test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(READY)
	$(QUIET) MPLBACKEND=Agg $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

notebooks-test: $(READY)
	$(QUIET) $(FIGURES) $(BIN)/pytest -c tests/nbval.ini --rootdir . --nbval --nbval-current-env \
		-n 2 --dist loadfile --durations 8 notebooks

test-colab: $(READY)
	$(BIN)/python tools/test_colab.py $(N)

notebooks: $(READY)
	$(QUIET) $(BIN)/python tools/run_notebooks.py $(N)

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
