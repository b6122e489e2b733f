# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
WORKERS ?= 2
FUZZ_SEED ?= 0
FUZZ_INPUTS ?= 10000
POCKET ?= out/pocket
GPU_PYTHON ?= python3
DEVICE ?= cuda
FULL_SIZE ?= out/full-size
MEASURED ?= out/measured
DOCS ?= out/docs

.PHONY: demo test test-minimum quick coverage crash fuzz families lint types docs docs-links train-pocket train-adapter measure-gpu clean

# torch is named with its version: a looser requirement may fetch gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "recast_probe needs Python 3.11 or newer; set PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,notebooks,metrics,masks]'
	touch $(READY)

demo: $(READY)
	$(BIN)/recast-probe demo --out $(OUT) --overwrite

# one thread a worker: programs of several threads starve each other on few cores; who is done first
# takes tests of the other, from the end, so that files stay together and both end together
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# the same with the oldest versions that pyproject.toml allows, in an environment of its own
test-minimum:
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-minimum/bin/uv pip install --python $(VENV)-minimum/bin/python --resolution lowest-direct \
		--torch-backend cpu -e '.[dev,notebooks,metrics,masks]'
	OMP_NUM_THREADS=1 $(VENV)-minimum/bin/python -m pytest -n $(WORKERS) --dist worksteal

# the loop of about a minute; see tests/slow.py for what it leaves out
quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# which lines no test runs, in the terminal and in out/coverage
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered --cov-report=html:out/coverage

# studies killed, stopped and run twice at once, at 100 random moments each; and on Ray, at 30
crash: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.crash
	OMP_NUM_THREADS=1 RECAST_PROBE_CRASH=1 $(BIN)/python -m pytest tests/studies/test_ray.py
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.crash_ray

# 10,000 damaged and hostile inputs; fails where one is answered wrongly, hangs or ends in a traceback
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.fuzz --seed $(FUZZ_SEED) --inputs $(FUZZ_INPUTS) --lanes $(WORKERS)

# the table of pipelines in README.md, after examining each for every property; takes minutes
families: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m recast_probe.testing.conformance --write README.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

# the site of the documentation; a warning is an error, and so is a link to nothing inside it
docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -E -a -W --keep-going -b html docs $(DOCS)

# links to other sites as well; needs a network
docs-links: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b linkcheck docs $(DOCS)-links

train-pocket: $(READY)
	$(BIN)/recast-probe pocket assets --out $(POCKET)
	$(BIN)/recast-probe pocket train --pack $(POCKET)/subjects.npz --out $(POCKET)

train-adapter: $(READY)
	$(BIN)/recast-probe pocket assets --out $(POCKET)
	$(BIN)/recast-probe pocket train-adapter --pack $(POCKET)/subjects.npz --out $(POCKET)/ip_adapter

# Every row of docs/performance.md that needs a GPU, and the commands at full size; takes a Python
# with a CUDA build of torch and this package, 34 GB of disk and 40 GB of GPU memory.
measure-gpu:
	$(GPU_PYTHON) -m pytest -q tests/gpu
	test -f $(FULL_SIZE)/model_index.json || $(GPU_PYTHON) -m benchmarks.full_size $(FULL_SIZE)
	$(GPU_PYTHON) -m benchmarks.readout --device $(DEVICE) --out $(MEASURED)/readout.json
	$(GPU_PYTHON) -m benchmarks.runs --device $(DEVICE) --model $(FULL_SIZE) --repeats 3 --out $(MEASURED)/runs.json
	$(GPU_PYTHON) -m benchmarks.scaling --device $(DEVICE) --out $(MEASURED)/scaling.json
	$(GPU_PYTHON) -m benchmarks.peers --device $(DEVICE) --model $(FULL_SIZE) --repeats 3 --out $(MEASURED)/peers.json
	for model in flux-kontext flux2-klein-4b qwen-image-edit; do \
		$(GPU_PYTHON) -m benchmarks.steps --device $(DEVICE) --model $$model --compiled --out $(MEASURED)/steps-$$model.json || exit 1; \
	done
	for more in "" --cpu-offload; do for command in profile "generate --method recast"; do \
		$(GPU_PYTHON) -m recast_probe $$command --model $(FULL_SIZE) --device $(DEVICE) $$more \
			--image docs/images/paths.png --prompt "on the beach" --overwrite --out $(MEASURED)/full-size || exit 1; \
	done; done

clean:
	rm -rf $(VENV) out
