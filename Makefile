# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
WORKERS ?= 2
POCKET ?= out/pocket

.PHONY: demo test lint types train-pocket clean

# torch is named with its version: a looser requirement may fetch gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "recast_probe needs Python 3.11 or newer; set PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,notebooks,metrics,masks]'
	touch $(READY)

demo: $(READY)
	$(BIN)/recast-probe demo --out $(OUT)

# one thread a worker: programs of several threads starve each other on few cores
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

train-pocket: $(READY)
	$(BIN)/recast-probe pocket assets --out $(POCKET)
	$(BIN)/recast-probe pocket train --pack $(POCKET)/subjects.npz --out $(POCKET)

clean:
	rm -rf $(VENV) out
