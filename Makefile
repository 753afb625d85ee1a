# Everything a user or developer runs. `make setup` is part of every target that needs it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-slow lint check presets bench bench-quick bench-statistics bench-forecasts experiments backbones lock audit clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  sys.exit(0 if ok else f"Python {sys.version.split()[0]}; allowed: 3.11 to 3.13; make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# A real study on generated radiographs, through Ray, Ray Tune and the store.
demo: $(READY)
	$(BIN)/study demo

# Many tests wait for processes: three at a time keep two cores busy.
test: $(READY)
	$(BIN)/pytest -n 3 --dist loadfile

# Minutes long: random kills of the driver, soak runs.
test-slow: $(READY)
	$(BIN)/pytest -m slow -n 0

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What one runs while one works: `make test` without a cluster.
check: lint
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not cluster'

# The catalog on generated and, where present, real data.
presets: $(READY)
	$(BIN)/pytest -m slow -n 0 tests/presets

# How fast the platform is, against scripts and bare loops: under 90 minutes on 2 cores; writes bench.json.
bench: $(READY)
	$(BIN)/python -m tests.bench

# Coverage of intervals and error rates of tests: 1,000 simulated studies of every design, about an hour on one core.
bench-statistics: $(READY)
	$(BIN)/python -m tests.bench coverage -o bench-statistics.json

# Whether intervals of forecast learning curves hold, over simulated and measured curves: some minutes on one core.
bench-forecasts: $(READY)
	$(BIN)/python -m tests.bench forecasts -o bench-forecasts.json

# Whether pretraining and images without masks help, on generated images: three hours on 2 cores; resumes.
experiments: $(READY)
	$(BIN)/python -m tests.experiments

# The same as `make bench` on less work, under 5 minutes.
bench-quick: $(READY)
	$(BIN)/python -m tests.bench --quick

# The table of backbones from the installed libraries, then the revisions of weights that the hub pins.
backbones: $(READY)
	$(BIN)/python -m models.catalog.table
	$(BIN)/python -m models.catalog.pins

# torch names the CUDA packages that fit it; pinning them here would force them on machines without a GPU.
lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-emit-index-url --no-annotate \
	  --upgrade --quiet pyproject.toml | grep -vE '^(nvidia|cuda|triton)-?' > requirements.lock

# Known vulnerabilities of what the lock pins, from osv.dev: needs a network, and fails without one.
audit: $(READY)
	$(BIN)/uv tool run pip-audit --requirement requirements.lock --disable-pip --no-deps --strict \
	  --vulnerability-service osv

clean:
	rm -rf .venv build *.egg-info
