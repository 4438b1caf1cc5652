# `make demo` and `make test` each work alone on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
# cpu installs onnxruntime, gpu installs onnxruntime-gpu; never both in one environment.
EXTRA ?= cpu
DEMO_OUT ?= demo
# Where a trained generator of faces comes from (MIT), for `sefa demo --model faces` and the tests. Only its weights file is read, its code is not imported,
# and the packages it names are not needed: hence --no-deps.
FACES = gan-face-generate==1.1.1
# A class-conditional one, of eyes, for the tests; likewise.
EYES = omniart-eye-generator==0.1

VENV = .venv$(if $(filter-out cpu,$(EXTRA)),-$(EXTRA))
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
DEV = $(VENV)/.installed
TRAINED = $(VENV)/.trained
RUNTIME_VENV = .venv-runtime
RUNTIME = $(RUNTIME_VENV)/.installed

LOWEST_VENV = .venv-lowest
LOWEST = $(LOWEST_VENV)/.installed
NEWEST_VENV = .venv-newest

PROTO_VENV = .venv-proto
RELEASE_VENV = .venv-release
RELEASE = $(RELEASE_VENV)/.installed
AUDIT_VENV = .venv-audit
TRITON_VENV = .venv-triton
TRITON = $(TRITON_VENV)/.installed
CUDA_VENV = .venv-cuda
CUDA = $(CUDA_VENV)/.installed
OPENVINO_VENV = .venv-openvino
OPENVINO = $(OPENVINO_VENV)/.installed
PEERS_VENV = .venv-peers
PEERS_INSTALLED = $(PEERS_VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z][a-z0-9-]*\):.*/\1/p' $(MAKEFILE_LIST))

help: ## This list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.* ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{ printf "make %-18s %s\n", $$1, $$2 }'

$(DEV): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit("sefa needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch, onnx and onnxruntime into $(VENV) (a few minutes the first time)"
	$(PIP) --constraint constraints.txt --editable ".[$(EXTRA),export,dev,docs]"
	touch $@

# The weights that tests and benchmarks read, besides those of the letters, which come with sefa.
$(TRAINED): $(DEV)
	$(PIP) --no-deps --ignore-requires-python $(FACES) $(EYES)
	touch $@

$(RUNTIME): pyproject.toml constraints.txt Makefile
	test -x $(RUNTIME_VENV)/bin/python || $(PYTHON) -m venv $(RUNTIME_VENV)
	$(RUNTIME_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint constraints.txt --editable ".[cpu,grpc,plot,video]" \
		hypothesis httpx jsonschema pytest pyyaml schemathesis "tritonclient[grpc,http]"
	touch $@

check: $(DEV) docs ## Formatting, lint and types, the public interface also with pyright; the documentation builds without a warning
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

# The variable silences material's announcement of its successor.
docs: $(DEV) ## The documentation as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

docs-serve: $(DEV) ## The same at http://127.0.0.1:8000, built again at each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# In as many processes as there are cores.
test: $(TRAINED) ## All tests but those below
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Of the processes that tests start, too.
# Without those that limit a process's files, which hold its figures too, or its seconds, of which the tracer takes some.
coverage: $(TRAINED) ## The same tests, and which lines they run
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses auto --dist worksteal -k "not full_disk and not refused_soon"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

test-slow: $(TRAINED) ## Tests that take a minute or more
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

test-faults: $(TRAINED) ## Kills, full disks, lost files, dying providers, and all hostile files
	$(BIN)/python -m pytest -m faults tests/faults tests/test_hostile_corpus.py --numprocesses auto --dist worksteal

test-browser: $(TRAINED) ## The pages in Chromium, which must be installed
	$(PIP) --constraint constraints.txt playwright axe-playwright-python
	! command -v npm > /dev/null || test -d $(VENV)/web || npm install --prefix $(VENV)/web --silent --no-audit --no-fund onnxruntime-web@1.30.0
	$(BIN)/python -m pytest -m browser tests/browser

test-runtime: $(RUNTIME) ## The runtime's tests in an environment without torch and onnx
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
test-versions: $(LOWEST) ## What touches torch, onnx and onnxruntime, with their lowest and their newest versions (several GB)
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

# What fails is kept in fuzz-failures/, and the record of a long run under benchmarks/results.
SECONDS = 60
fuzz: $(DEV) ## Damage files of every kind and read them, for SECONDS=60
	PYTHONPATH=tests $(BIN)/python tests/fuzz.py --seconds $(SECONDS) -o benchmarks/results/fuzz.json

check-triton: $(TRITON) ## A real tritonserver on the repositories that `sefa triton` writes (Linux, x86-64, no GPU needed)
	$(TRITON_VENV)/bin/python -m pytest -m slow tests/runtime/deploy/test_triton_server.py

# Without NVIDIA's libraries, in whose place the test has its own.
$(CUDA): pyproject.toml constraints.txt Makefile
	test -x $(CUDA_VENV)/bin/python || $(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint constraints.txt numpy onnxruntime-gpu pillow
	touch $@

check-cuda: $(DEV) $(CUDA) ## Sessions on CUDA's provider without a GPU: placement, options, buffers, graphs (Linux, x86-64, gcc)
	$(BIN)/python -m pytest -m cuda tests/cuda

demo: $(DEV) ## Directions, ONNX, TorchScript, images and latency of a generator of letters, into demo/; EXTRA=gpu: through CUDA
	$(BIN)/sefa demo -o $(DEMO_OUT)

bench-startup: $(DEV) ## How long the command line and the runtime take to start
	$(BIN)/python benchmarks/startup.py -o benchmarks/results/startup.json

bench-eager: $(TRAINED) ## An edit through onnxruntime and in PyTorch: letters, faces, BigGAN-128, PGGAN-256
	missed=0; for model in letters faces biggan-128 pggan-256; do \
		$(BIN)/python benchmarks/eager.py --model $$model -o benchmarks/results/$$model-eager.json || missed=1; done; exit $$missed

bench-precision: $(TRAINED) ## What half precision does to trained generators
	$(BIN)/python benchmarks/precision.py -o benchmarks/results/precision.json

bench-runtime: $(TRAINED) ## What the runtime weighs, installed and in memory
	$(BIN)/python benchmarks/runtime_weight.py -o benchmarks/results/runtime-weight.json

bench-overhead: $(TRAINED) ## What the edit inside the graph costs
	$(BIN)/python benchmarks/overhead.py -o benchmarks/results/overhead.json

bench-loadgen: $(TRAINED) ## `sefa bench` beside MLPerf's LoadGen
	$(PIP) --constraint constraints.txt mlcommons-loadgen
	$(BIN)/python benchmarks/loadgen.py -o benchmarks/results/loadgen.json

bench-stylegan2: $(DEV) ## A StyleGAN2 of 256x256 and of 1024x1024 through onnxruntime and in PyTorch
	$(BIN)/python benchmarks/stylegan2_256.py -o benchmarks/results/stylegan2-256.json
	$(BIN)/python benchmarks/stylegan2_1024.py -o benchmarks/results/stylegan2-1024.json

bench-winograd: $(DEV) ## Where Winograd's form of a convolution is faster: channels, resolutions, batches
	$(BIN)/python benchmarks/winograd.py -o benchmarks/results/winograd.json

bench-same-latent: $(DEV) ## What keeping a latent's first layers saves
	$(BIN)/python benchmarks/same_latent.py -o benchmarks/results/same-latent.json

bench-explore: $(TRAINED) ## How long sefa explore takes, and what fewer images do to its answers (13 minutes)
	$(BIN)/python benchmarks/explore.py -o benchmarks/results/explore.json

bench-scaling: $(DEV) ## How time and memory grow with resolution, batch, threads, directions and edits
	$(PIP) --constraint constraints.txt matplotlib
	$(BIN)/python benchmarks/scaling.py -o benchmarks/results/scaling.json --chart docs/scaling.webp

bench-methods: $(TRAINED) ## SeFa beside GANSpace
	$(BIN)/python benchmarks/methods.py -o benchmarks/results/methods.json

bench-page: $(TRAINED) ## From a move of the page's slider to the new image
	$(PIP) --constraint constraints.txt playwright axe-playwright-python
	$(BIN)/python benchmarks/page_latency.py -o benchmarks/results/page-latency.json

bench-serving: $(TRAINED) ## `sefa serve` under load
	$(BIN)/sefa demo -o $(DEMO_OUT) --model faces
	$(BIN)/python benchmarks/serving.py $(DEMO_OUT)/faces.onnx -o benchmarks/results/serving.json

bench-gpu: $(DEV) ## With EXTRA=gpu: everything on an NVIDIA GPU, in at most 8 minutes
	$(BIN)/python benchmarks/gpu.py --all -o benchmarks/results/gpu.json

$(OPENVINO): pyproject.toml constraints.txt Makefile
	test -x $(OPENVINO_VENV)/bin/python || $(PYTHON) -m venv $(OPENVINO_VENV)
	$(OPENVINO_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint constraints.txt numpy onnxruntime-openvino pillow
	touch $@

# Other people's generators: --no-deps, since they name packages of their training and torch for CUDA. Torch is that of $(VENV).
PURELIB = import sysconfig; print(sysconfig.get_path("purelib"))
$(PEERS_INSTALLED): $(TRAINED)
	test -x $(PEERS_VENV)/bin/python || $(BIN)/python -m venv $(PEERS_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PURELIB)')')" > $$($(PEERS_VENV)/bin/python -c '$(PURELIB)')/shared.pth
	$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
		pytorch-pretrained-biggan==0.1.1 boto3 botocore jmespath python-dateutil s3transfer six tqdm \
		stylegan2_pytorch==1.9.0 einops kornia kornia_rs stylegan2-torch==1.3.0 torch-conv-gradfix
	touch $@

# PEERS is a folder with clones of genforce/genforce, NVlabs/stylegan2-ada-pytorch, rosinality/stylegan2-pytorch and
# ajbrock/BigGAN-PyTorch, as git names them; those that are not there are left out.
PEERS =
bench-peers: $(PEERS_INSTALLED) $(OPENVINO) ## Our exports beside other people's generators, PEERS=folder with clones; 10 minutes
	$(PEERS_VENV)/bin/python benchmarks/peers.py $(if $(PEERS),--clones $(PEERS)) \
		--openvino $(OPENVINO_VENV)/bin/python -o benchmarks/results/peers.json
	$(PEERS_VENV)/bin/python benchmarks/peers.py --chart benchmarks/results/peers.json \
		--models stylegan2-256 biggan-128 pggan-256 -o docs/peers.webp
	$(PEERS_VENV)/bin/python benchmarks/peers.py --chart benchmarks/results/peers.json \
		--models stylegan2-256 -o docs/peers-stylegan2.webp

bench-tuned: $(DEV) $(OPENVINO) ## What `sefa tune` gains, with OpenVINO beside the CPU (10 minutes)
	$(BIN)/python benchmarks/tuned.py --openvino $(OPENVINO_VENV)/bin/python -o benchmarks/results/tuned.json

# A StyleGAN2 of 64x64 pixels among the tests' files.
MINUTES = 30
soak: $(DEV) ## `sefa serve` under mixed load, with bad requests, disconnects and replaced models, for MINUTES=30
	$(BIN)/python benchmarks/soak.py tests/golden/checkpoints/nv_ada_skip_64/network.pkl --minutes $(MINUTES) -o benchmarks/results/soak.json

bench-formats: $(TRAINED) ## How far each checkpoint format is from its original code
	PYTHONPATH=tests $(BIN)/python -m support.golden_checkpoints -o benchmarks/results/formats.json

# Licences that may be used, read and passed on with ours, by parts of their names. NVIDIA's are those of CUDA's wheels.
LICENCES = MIT;BSD;Apache;PSF;Python Software Foundation;MPL;Mozilla;ISC;Zlib;ZPL;Unlicense;HPND;NVIDIA
# Without a licence in their metadata: axe-playwright-python is MIT, and used in tests only.
UNLICENSED = axe-playwright-python
audit: $(DEV) ## Known vulnerabilities (asks PyPI's database) and licences of the dependencies
	test -x $(AUDIT_VENV)/bin/python || $(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet pip-audit pip-licenses
	$(AUDIT_VENV)/bin/pip-licenses --python $(BIN)/python --partial-match --allow-only "$(LICENCES)" --ignore-packages sefa $(UNLICENSED)
	$(AUDIT_VENV)/bin/pip-audit --strict --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

$(RELEASE): Makefile
	test -x $(RELEASE_VENV)/bin/python || $(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		build "check-wheel-contents>=0.6" "cyclonedx-bom>=7" "nox>=2025.2" "pypiserver>=2.3" "twine>=6"
	touch $@

# SESSIONS="build own_tests" runs some; TAG=v1.2.3 wants that version, with a date in CHANGELOG.md.
release: $(RELEASE) ## sdist, wheel and bill of materials into dist/; every extra installed and tried on every Python that is here
	PATH="$(CURDIR)/$(RELEASE_VENV)/bin:$$PATH" TAG="$(TAG)" $(RELEASE_VENV)/bin/nox $(if $(SESSIONS),--sessions $(SESSIONS))

GRPC = runtime/sefa_runtime/server/grpc
proto: ## Compile the gRPC messages (after a change of a .proto file)
	test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip --disable-pip-version-check install --quiet "grpcio-tools>=1.66"
	$(PROTO_VENV)/bin/python -m grpc_tools.protoc -I$(GRPC) --descriptor_set_out=$(GRPC)/messages.binpb inference.proto health.proto

clean: ## Remove the environments, the site and the demo's files
	rm -rf .venv .venv-* site $(DEMO_OUT)
