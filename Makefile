# `make demo` and `make test` each work alone on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
# cpu installs onnxruntime, gpu installs onnxruntime-gpu; never both in one environment.
EXTRA ?= cpu
DEMO_OUT ?= demo
# Where a trained generator of faces comes from (MIT). Only its weights file is read, its code is not imported,
# and the packages it names are not needed: hence --no-deps.
FACES = gan-face-generate==1.1.1
# A class-conditional one, of eyes, for the tests; likewise.
EYES = omniart-eye-generator==0.1

VENV = .venv$(if $(filter-out cpu,$(EXTRA)),-$(EXTRA))
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
DEV = $(VENV)/.installed
RUNTIME_VENV = .venv-runtime
RUNTIME = $(RUNTIME_VENV)/.installed

LOWEST_VENV = .venv-lowest
LOWEST = $(LOWEST_VENV)/.installed
NEWEST_VENV = .venv-newest

TRITON_VENV = .venv-triton
TRITON = $(TRITON_VENV)/.installed

.PHONY: help check check-triton test test-slow test-browser test-runtime test-versions demo bench-startup bench-eager bench-runtime bench-overhead bench-loadgen bench-stylegan2 bench-formats bench-serving bench-page bench-methods clean

help:
	@echo "make demo          directions, ONNX, TorchScript, pictures and latency of a face generator, into $(DEMO_OUT)/"
	@echo "make demo EXTRA=gpu   the same through onnxruntime's CUDA provider"
	@echo "make test          all tests"
	@echo "make test-slow     those that take a minute or more"
	@echo "make test-browser  the pages in Chromium, which must be installed"
	@echo "make test-runtime  the runtime's tests in an environment without torch and onnx"
	@echo "make test-versions what touches torch, onnx and onnxruntime, with their lowest and their newest versions (several GB)"
	@echo "make check-triton  a real tritonserver on the repositories that sefa triton writes (Linux, x86-64, no GPU needed)"
	@echo "make check         formatting, lint and types"
	@echo "make bench-startup, bench-eager, bench-runtime, bench-overhead, bench-loadgen, bench-stylegan2, bench-formats, bench-serving, bench-page, bench-methods   records under benchmarks/results"
	@echo "make clean         remove the environments and the demo's files"

$(DEV): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit("sefa needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch, onnx and onnxruntime into $(VENV) (a few minutes the first time)"
	$(PIP) --constraint constraints.txt --editable ".[$(EXTRA),export,dev]"
	$(PIP) --no-deps --ignore-requires-python $(FACES) $(EYES)
	touch $@

$(RUNTIME): pyproject.toml constraints.txt Makefile
	test -x $(RUNTIME_VENV)/bin/python || $(PYTHON) -m venv $(RUNTIME_VENV)
	$(RUNTIME_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint constraints.txt --editable ".[cpu,grpc,plot,video]" \
		hypothesis httpx jsonschema pytest pyyaml schemathesis "tritonclient[grpc,http]"
	touch $@

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# In as many processes as there are cores.
test: $(DEV)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

test-browser: $(DEV)
	$(PIP) --constraint constraints.txt playwright axe-playwright-python
	$(BIN)/python -m pytest -m browser tests/browser

test-runtime: $(RUNTIME)
	$(RUNTIME_VENV)/bin/python -m pytest tests/runtime

# The lowest that pyproject.toml allows, of all that users install. schemathesis wants a newer rich, and does not come.
$(LOWEST): pyproject.toml tests/support/lowest.py Makefile
	test -x $(LOWEST_VENV)/bin/python || $(PYTHON) -m venv $(LOWEST_VENV)
	$(PYTHON) tests/support/lowest.py pyproject.toml > $(LOWEST_VENV)/lowest.txt
	$(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint $(LOWEST_VENV)/lowest.txt --editable ".[cpu,export,grpc,plot,video]" \
		httpx hypothesis jsonschema pytest pytest-xdist pyyaml scikit-learn "tritonclient[grpc,http]"
	$(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --ignore-requires-python $(FACES) $(EYES)
	touch $@

# The tests of the two packages that need torch, of the command line, and of the runtime but for its servers.
VERSIONS = tests/sefa tests/export tests/cli tests/runtime --ignore tests/runtime/server --ignore tests/runtime/deploy

# Of the lowest, warnings are no errors: old packages warn of the newer ones beside them. Then with what is newest today: without constraints, and looked for each time.
test-versions: $(LOWEST)
	$(LOWEST_VENV)/bin/python -m pytest --numprocesses auto --dist worksteal -o filterwarnings=default $(VERSIONS)
	test -x $(NEWEST_VENV)/bin/python || $(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --upgrade-strategy eager \
		--editable ".[cpu,export,dev]"
	$(NEWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --ignore-requires-python $(FACES) $(EYES)
	$(NEWEST_VENV)/bin/python -m pytest --numprocesses auto --dist worksteal $(VERSIONS)

# numpy 1 and protobuf 6, hence an environment of its own, with what goes with them; Python 3.11 to 3.13.
$(TRITON): pyproject.toml Makefile
	test -x $(TRITON_VENV)/bin/python || $(PYTHON) -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable ".[cpu]" \
		nvidia-pytriton==0.7.0 "tritonclient[grpc,http]==2.73.0" "protobuf<7" "pytest>=9.0"
	touch $@

check-triton: $(TRITON)
	$(TRITON_VENV)/bin/python -m pytest -m slow tests/runtime/deploy/test_triton_server.py

demo: $(DEV)
	$(BIN)/sefa demo -o $(DEMO_OUT)

bench-startup: $(DEV)
	$(BIN)/python benchmarks/startup.py -o benchmarks/results/startup.json

bench-eager: $(DEV)
	$(BIN)/python benchmarks/eager.py -o benchmarks/results/faces-eager.json

bench-runtime: $(DEV)
	$(BIN)/python benchmarks/runtime_weight.py -o benchmarks/results/runtime-weight.json

bench-overhead: $(DEV)
	$(BIN)/python benchmarks/overhead.py -o benchmarks/results/overhead.json

bench-loadgen: $(DEV)
	$(PIP) --constraint constraints.txt mlcommons-loadgen
	$(BIN)/python benchmarks/loadgen.py -o benchmarks/results/loadgen.json

bench-stylegan2: $(DEV)
	$(BIN)/python benchmarks/stylegan2_256.py -o benchmarks/results/stylegan2-256.json
	$(BIN)/python benchmarks/stylegan2_1024.py -o benchmarks/results/stylegan2-1024.json

bench-methods: $(DEV)
	$(BIN)/python benchmarks/methods.py -o benchmarks/results/methods.json

bench-page: $(DEV)
	$(PIP) --constraint constraints.txt playwright axe-playwright-python
	$(BIN)/python benchmarks/page_latency.py -o benchmarks/results/page-latency.json

bench-serving: $(DEV)
	$(BIN)/sefa demo -o $(DEMO_OUT)
	$(BIN)/python benchmarks/serving.py $(DEMO_OUT)/faces.onnx -o benchmarks/results/serving.json

bench-formats: $(DEV)
	PYTHONPATH=tests $(BIN)/python -m support.golden_checkpoints -o benchmarks/results/formats.json

clean:
	rm -rf .venv .venv-* $(DEMO_OUT)
