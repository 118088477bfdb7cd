# The interface of the project: `make` lists the targets, each of which is a few commands.

PYTHON       ?= python3.11
GPU_PYTHON   ?= python3
TARGET       ?= cpu
OUT          ?= build/$(TARGET)
MODEL        ?=
COSYVOICE    ?=
VOICES       ?=
PROFILE      ?=
HOST         ?= 127.0.0.1
GRPC_PORT    ?= 8001
HTTP_PORT    ?= 8000
METRICS_PORT ?= 8002
TWO_GPUS     ?=
SERVE_ARGS   ?=
SECRETS      ?=
PARITY_ARGS  ?=
UPSTREAM     ?=
UPSTREAM_PYTHON ?= python3
VECTORS      ?=
BENCH_ARGS   ?=
BUILD_ARGS   ?=
CHECK_ARGS   ?=
PERF_ARGS    ?=
FAULTS_ARGS  ?=
PERF_DIR     ?= output/perf
TEST_ARGS    ?=
JOBS         ?= auto
MINUTES      ?= 60
CASES        ?= 20000
CANCELS      ?= 10000
ROBUST_DIR   ?= output/robust
ROBUST_ARGS  ?=

# Paths may hold anything: recipes read them from the environment, where neither make nor a shell looks inside.
PATHS := OUT OUT_DIR MODEL COSYVOICE VOICES UPSTREAM VECTORS RECORDED SECRETS PERF_DIR ROBUST_DIR
$(foreach name,$(PATHS),$(if $(filter command environment,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
RECORDED := $(or $(VECTORS),$(OUT)/authors)
export $(PATHS)

VENV  := .venv
BIN   := $(VENV)/bin
LOCK  := requirements-cpu.lock
TRITON := triton==3.6.0
STAMP := $(VENV)/.installed

# Target tensorrt runs in its container, all others in .venv. Compose wants whole paths, and the container's
# user must own OUT: the caller of make, but never root.
ifeq ($(TARGET),tensorrt)
READY    :=
RUN_UID  := $(if $(filter 0,$(shell id -u)),1000,$(shell id -u))
RUN_GID  := $(if $(filter 0,$(shell id -u)),1000,$(shell id -g))
COMPOSE  := whole() { [ -z "$$1" ] || realpath -ms -- "$$1"; }; \
	MODEL="$$(whole "$$MODEL")" COSYVOICE="$$(whole "$$COSYVOICE")" VOICES="$$(whole "$$VOICES")" \
	OUT="$$(whole "$$OUT")" SECRETS="$$(whole "$$SECRETS")" PROFILE="$(PROFILE)" RUN_UID=$(RUN_UID) RUN_GID=$(RUN_GID) BIND=$(HOST) \
	GRPC_PORT=$(GRPC_PORT) HTTP_PORT=$(HTTP_PORT) METRICS_PORT=$(METRICS_PORT) PARITY_ARGS="$(PARITY_ARGS)" \
	BUILD_ARGS="$(BUILD_ARGS)" SERVE_ARGS="$(SERVE_ARGS)" docker compose
GPUS     := $(if $(TWO_GPUS),-two-gpus)
else
READY    := setup
endif

# Small machines: libraries that spin up one pool per process slow each other down by 5 to 10 times.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup build-engines serve demo parity test test-fast test-server test-kernels check-tensorrt check-tensorrt-full upstream check bench bench-gpu \
	bench-gpu-report first-gpu \
	bench-token2wav bench-hops perf-out built perf perf-load perf-agree perf-report faults soak fuzz storm doctor clean

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo
	@echo "  TARGET=$(TARGET) OUT=$$OUT MODEL=$$MODEL COSYVOICE=$$COSYVOICE VOICES=$$VOICES PROFILE=$(PROFILE)"
	@echo "  HOST=$(HOST) GRPC_PORT=$(GRPC_PORT) HTTP_PORT=$(HTTP_PORT) METRICS_PORT=$(METRICS_PORT)"

setup: $(STAMP) ## Virtual environment .venv with the exact versions of requirements-cpu.lock

$(STAMP): $(LOCK) pyproject.toml
	@case "$$PWD" in *[:$$]*) echo "make setup: Python's venv and setuptools cannot work in a folder whose path holds" \
		"':' or '\$$': move the checkout" >&2; exit 1;; esac
	@command -v $(PYTHON) >/dev/null || { \
		echo "make setup: $(PYTHON) is not on PATH; install Python 3.11 (with its shared library and venv)" \
		     "or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "make setup: $(PYTHON) is not Python 3.11, which the bundled Triton backend is linked to;" \
		     "name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	@# The kernels' compiler. A CUDA build of torch has brought the version that it needs; a CPU build brings none.
	$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install --quiet $(TRITON)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

build-engines: $(READY) ## Engines and rendered model repository in OUT (tiny checkpoint without MODEL, COSYVOICE)
ifeq ($(TARGET),tensorrt)
	@mkdir -p -- "$$OUT" && { [ "$$(id -u)" != 0 ] || chown $(RUN_UID):$(RUN_GID) -- "$$OUT"; }
	$(COMPOSE) run --rm build$(GPUS)
else
	$(BIN)/python -m builders build --target $(TARGET) --out="$$OUT" --model="$$MODEL" --cosyvoice="$$COSYVOICE" \
		--voices="$$VOICES" $(if $(PROFILE),--profile "$(PROFILE)") $(BUILD_ARGS)
endif

serve: $(READY) ## Supervised Triton server on OUT; ready when it prints its URLs
ifeq ($(TARGET),tensorrt)
	$(COMPOSE) up serve$(GPUS)
else
	$(BIN)/python -m runtime.supervisor --out="$$OUT" --host $(HOST) --grpc-port $(GRPC_PORT) \
		--http-port $(HTTP_PORT) --metrics-port $(METRICS_PORT) $(SERVE_ARGS)
endif

parity: $(READY) ## Engines of OUT against the torch engine; with MODEL and UPSTREAM or VECTORS, against the authors' code
ifeq ($(TARGET),tensorrt)
	$(if $(UPSTREAM)$(VECTORS),$(error parity with the authors' code is for TARGET=cpu and TARGET=cuda; leave out UPSTREAM and VECTORS))
	$(COMPOSE) run --rm parity
else ifneq ($(UPSTREAM)$(VECTORS),)
	$(if $(UPSTREAM),$(UPSTREAM_PYTHON) builders/parity/upstream.py --upstream="$$UPSTREAM" --model="$$MODEL" \
		--out="$$RECORDED" $(UPSTREAM_ARGS))
	$(BIN)/python -m builders.parity.authors --model="$$MODEL" --vectors="$$RECORDED" --device $(TARGET) $(PARITY_ARGS)
else
	$(BIN)/python -m builders.parity --out="$$OUT" --target $(TARGET) $(PARITY_ARGS)
endif

demo: $(if $(filter tensorrt,$(TARGET)),built) build-engines ## One spoken question to a fresh server; answer in output/
	$(BIN)/python -m scripts.demo --out="$$OUT" $(if $(MODEL),--trained)

# Side by side in JOBS processes, each file in one of them. Servers and tests that judge time run one after another.
PYTEST   = $(BIN)/python -m pytest
PARALLEL = --numprocesses $(JOBS) --dist loadfile
test-fast: setup ## Unit tests, contracts and decoding of the golden set, in a minute: for every save
	$(PYTEST) $(PARALLEL) -m "not slow and not alone" tests/unit tests/contracts tests/golden/test_decode.py $(TEST_ARGS)

test-server: setup ## Tests on a real Triton server
	$(PYTEST) -m server $(TEST_ARGS)

# Status 5: TEST_ARGS picked none of this half.
test: setup ## All tests, 28 minutes on two slow cores; TEST_ARGS picks some
	$(PYTEST) $(PARALLEL) -m "not server and not alone" $(TEST_ARGS) || [ $$? = 5 ]
	$(PYTEST) -m "server or alone" $(TEST_ARGS) || [ $$? = 5 ]

test-kernels: setup ## GPU kernels against their plain torch twins, in Triton's CPU interpreter where there is no GPU
	$(PYTEST) tests/kernels $(TEST_ARGS)

check-tensorrt: upstream ## Real bindings, a real builder, older exporters and compilers: all that needs no GPU
	UPSTREAM_REQUIRED=1 EVERY_VARIANT=1 $(PYTEST) tests/contracts tests/kernels/test_compile.py $(TEST_ARGS)

check-tensorrt-full: upstream ## Plans of the released sizes with random weights: time and memory; 10 GB of memory, minutes
	$(BIN)/python -m builders.tensorrt.check full --save benchmarks/results/plans_full.json $(CHECK_ARGS)

upstream: setup ## Real packages that tests load beside ours, into .venv/upstream; 350 MB, once
	@$(BIN)/python -m builders.upstream

check: setup ## Lint, format, types and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile

bench: built ## Load test, tables and one JSON line
	$(BIN)/python -m benchmarks --out="$$OUT" $(BENCH_ARGS)

bench-gpu: ## Full-size model with random weights on a GPU; needs torch >= 2.11 and Triton >= 3.6, no .venv
	$(GPU_PYTHON) -m benchmarks.gpu $(BENCH_ARGS)

bench-gpu-report: setup ## Page and plots from all results of bench-gpu in benchmarks/results
	$(if $(wildcard benchmarks/results/gpu_*.json),,$(error no result of make bench-gpu in benchmarks/results))
	$(BIN)/python -m benchmarks.gpu.report $(sort $(wildcard benchmarks/results/gpu_*.json)) --to benchmarks/results

first-gpu: ## All first checks and figures on a bare GPU machine, 13 minutes; results in OUT_DIR, no .venv needed
	$(if $(OUT_DIR),,$(error name a folder for the results: make first-gpu OUT_DIR=...))
	$(GPU_PYTHON) -m benchmarks.first_gpu --out="$$OUT_DIR" $(FIRST_GPU_ARGS)

bench-token2wav: setup ## Cost of token2wav chunks and of batches; last line is JSON
	$(BIN)/python -m benchmarks.token2wav $(BENCH_ARGS)

bench-hops: built ## Silence that a listener hears with each hop policy; last line is JSON
	$(BIN)/python -m benchmarks.hops --out="$$OUT" $(BENCH_ARGS)

# A running server at the address is measured as it is; else one is started on OUT, which is built when it is missing.
PERF_AT = --out="$$OUT" --host $(HOST) --grpc-port $(GRPC_PORT) --http-port $(HTTP_PORT) --metrics-port $(METRICS_PORT)
perf-out: setup
	@[ "$(TARGET)" = tensorrt ] || [ -d "$$OUT/model_repository" ] || $(MAKE) build-engines

# For what runs the engines itself, outside any container.
built: perf-out
	$(if $(filter tensorrt,$(TARGET)),$(error engines of TARGET=tensorrt run in their container only; leave TARGET out))

perf: perf-out ## Sweep with NVIDIA's perf_analyzer (fetched when missing); last line is JSON
	$(BIN)/python -m benchmarks.perf analyzer $(PERF_AT) --save="$$PERF_DIR"/perf_analyzer.json $(PERF_ARGS)

perf-load: perf-out ## Sweep with our generator: listeners, Poisson, mixed modes, cancels; last line is JSON
	$(BIN)/python -m benchmarks.perf load $(PERF_AT) --save="$$PERF_DIR"/load.json $(PERF_ARGS)

perf-agree: perf-out ## Do both see the same server? First-audio p50 of 200 requests each, in turns
	$(BIN)/python -m benchmarks.perf agree $(PERF_AT) --save="$$PERF_DIR"/agree.json $(PERF_ARGS)

# FAULTS_ARGS picks tests; rows of faults that a run leaves out stay in the result.
faults: setup ## Everything that can break, done to real servers; writes docs/failures.md's table; last line is JSON
	FAULTS_SAVE=benchmarks/results/faults_cpu.json FAULTS_PAGE=docs/failures.md $(PYTEST) tests/faults -s -q $(FAULTS_ARGS)

perf-report: setup ## Markdown page and plots from all JSON files in PERF_DIR
	$(BIN)/python -m benchmarks.perf report "$$PERF_DIR"/*.json --to="$$PERF_DIR"

# Long proofs on a server of their own; docs/soak.md. Results go to ROBUST_DIR.
soak: built ## Mixed traffic for MINUTES: does anything grow, hang, crash or differ? Last line is JSON
	$(BIN)/python -m tests.endurance.soak --out="$$OUT" --minutes $(MINUTES) --save="$$ROBUST_DIR"/soak.json $(ROBUST_ARGS)

fuzz: built ## CASES of right and wrong requests: always a clear error or a correct answer? Last line is JSON
	$(BIN)/python -m tests.endurance.fuzz --out="$$OUT" --cases $(CASES) --save="$$ROBUST_DIR"/fuzz.json $(ROBUST_ARGS)

storm: built ## CANCELS at every stage: is everything free again, and how soon? Last line is JSON
	$(BIN)/python -m tests.endurance.storm --out="$$OUT" --cancels $(CANCELS) --save="$$ROBUST_DIR"/storm.json $(ROBUST_ARGS)

# Without .venv any Python can say so: the checks themselves need no library.
DOCTOR_PYTHON = $(or $(wildcard $(BIN)/python),$(PYTHON))
doctor: ## What is wrong here, and the fix for each fault
	@$(DOCTOR_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make doctor: $(DOCTOR_PYTHON) is not there or older than Python 3.11; install Python 3.11, then make setup" \
		>&2; exit 1; }
	@$(DOCTOR_PYTHON) -m scripts.doctor $(PERF_AT) $(DOCTOR_ARGS)

clean: ## Removes what was built; keeps .venv and output
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
