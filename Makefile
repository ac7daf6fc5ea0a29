# Every habit of the project is one target; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export JOULEPATH_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/joulepath
UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv),$(JOULEPATH_CACHE)/uv-$(UV_VERSION)/bin/uv)
PY := .venv/bin/python
export UV

# Tests start processes by the hundred: the bytecode of what they import is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: venv
venv: .venv/.stamp ## The Python environment (.venv), pinned with hashes

$(JOULEPATH_CACHE)/uv-$(UV_VERSION)/bin/uv:
	@echo "fetching uv $(UV_VERSION) into $(JOULEPATH_CACHE)"
	@python3 -m venv $(JOULEPATH_CACHE)/uv-$(UV_VERSION) || { echo "python3 cannot make virtual environments: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@$(JOULEPATH_CACHE)/uv-$(UV_VERSION)/bin/pip install -q uv==$(UV_VERSION)

.venv/.stamp: pyproject.toml locks/dev.txt | $(UV)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; python3 is $$(python3 --version)" >&2; exit 2; }
	@echo "making .venv (about a minute, torch included)"
	@test -x $(PY) || $(UV) venv -q --python "$$(python3 -c 'import sys; print(sys.executable)')" .venv
# Compiled here, once: training pods can't write into it, and torch from its sources takes each process 10 s.
	@$(UV) pip sync -q --require-hashes --compile-bytecode --python $(PY) locks/dev.txt
	@$(UV) pip install -q --no-deps --python $(PY) --editable .
	@touch $@

.PHONY: lock
lock: ## Pin the dependencies again, with hashes (locks/)
	@$(UV) pip compile -q --upgrade --generate-hashes --no-header --all-extras pyproject.toml -o locks/dev.txt
	@for part in operator agent; do $(UV) pip compile -q --generate-hashes --no-header --extra $$part --constraint locks/dev.txt pyproject.toml -o locks/$$part.txt; done
# What the framework itself asks for is far more than its schedules import: they are given torch and little else.
	@cd locks/frameworks; for framework in *.in; do python=$$(sed -n 's/^# python //p' $$framework); \
	  case $$framework in torch-*) set -- "$$framework";; *) set -- "--constraint ../dev.txt ../frameworks.in" "--no-deps $$framework";; esac; \
	  for what in "$$@"; do \
	    $(UV) pip compile -q --generate-hashes --no-header --no-annotate --python-version $$python $$what; \
	  done > $${framework%.in}.txt; done

.PHONY: lint
lint: venv ## ruff, mypy strict, the import walls, the chart
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$$($(PY) -m real_cluster program helm) lint --strict --quiet charts/joulepath

.PHONY: format
format: venv ## Format the code and mend what ruff can
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format -q .

.PHONY: reference
reference: venv ## Write what docs and chart have from the code: CRDs, docs/metrics.md, the table of docs/frameworks.md
	@$(PY) -m joulepath_crds
	@$(PY) -m metrics_reference
	@$(PY) -m framework_table

# Twice as many as the smallest machine has cores: much of what tests do is waiting.
PARALLEL := $(PY) -m pytest -q -n 4 --dist worksteal

.PHONY: test-fast
test-fast: venv ## Tests without a cluster but the slow ones, a few minutes
	@$(PARALLEL) --hypothesis-profile "inner loop" -m "not cluster and not slow"

# Beside what has pods on the nodes, and mostly waits for them, all else runs, one after the other; but what has a node of
# its own waits as well, beside the rest.
.PHONY: test
test: cluster ## Every test, on the real cluster (root)
	@beside=$$(mktemp); trap 'rm -f $$beside' EXIT; echo "all tests but those with pods on the nodes: $$beside"; \
	  { status=0; $(PY) -m pytest -v -m "cluster and not nodes" tests/injector & injector=$$!; \
	    $(PY) -m pytest -v -m "cluster and not nodes" --ignore=tests/injector || status=1; wait $$injector || status=1; \
	    $(PARALLEL) -m "not cluster" || status=1; \
	    JOULEPATH_FUZZ_S=$(FUZZ_S) $(PARALLEL) tests/fuzz || status=1; exit $$status; } > $$beside 2>&1 & \
	  status=0; $(PY) -m pytest -v -m nodes || status=1; wait $$! || status=1; cat $$beside; exit $$status
	@echo "The cluster is left up for the next run; make down removes it."

.PHONY: test-frameworks
test-frameworks: venv ## What the trainer sees of each framework in locks/frameworks, by real trainings of each version (20 GB)
	@JOULEPATH_OLD_TORCH=1 $(PARALLEL) tests/trainer/frameworks

.PHONY: properties
properties: venv ## Every property with ever new examples, ten times as many as make test draws (half an hour)
	@$(PARALLEL) --hypothesis-profile "new examples" -m "hypothesis and not cluster"

FUZZ_S ?= 60
.PHONY: fuzz
fuzz: venv ## Ever new bytes for every decoder and the shared page, for FUZZ_S=60 seconds
	@JOULEPATH_FUZZ_S=$(FUZZ_S) $(PY) -m pytest -q tests/fuzz

.PHONY: cluster
cluster: venv ## A real two-node Kubernetes on this machine (about 20 minutes the first time, then seconds)
	@$(PY) -m real_cluster up

.PHONY: down
down: ## Remove the cluster and everything that it left; what was built is kept
	@if test -x $(PY); then $(PY) -m real_cluster down; else echo "nothing to do: no .venv, so no cluster was started from here"; fi

# make demo KEEP=1                leaves all up and prints the URLs and the KUBECONFIG
# make demo WORKLOAD=megatron     a GPT of Megatron-core, interleaved, in place of the published pipeline
# make demo WORKLOAD=straggler    two replicas of half of it, one of which is held up by heat
# make demo CLUSTER=current       uses the cluster of the current kubeconfig
# make demo ARGS="--lag-ms 20"    more options: python -m demo --help
.PHONY: demo
demo: venv ## The main job: GPT-3's pipeline on a real cluster with virtual GPUs, joules measured (root)
	@$(PY) -m demo $(if $(KEEP),--keep) $(if $(WORKLOAD),--workload $(WORKLOAD)) $(if $(CLUSTER),--cluster $(CLUSTER)) $(ARGS)

# make bench-planner ARGS="--data DIR"   with the published frontiers too; more: python benchmarks/planner.py --help
.PHONY: bench-planner
bench-planner: venv ## The planner's speed, memory and quality beside lowtime's; writes benchmarks/results/planner.json
	@$(PY) benchmarks/planner.py $(ARGS)

.PHONY: bench-fit
bench-fit: venv ## What completing a profile costs, by a known truth; writes benchmarks/results/fit.json
	@$(PY) benchmarks/fit.py $(ARGS)

.PHONY: bench-profiling
bench-profiling: venv ## What profiling a job costs and how well the frontier is known then, by a known truth; writes benchmarks/results/profiling.json
	@$(PY) benchmarks/profiling.py $(ARGS)

# make bench-looks ARGS="--sizes 64x12"
.PHONY: bench-looks
bench-looks: venv ## What a look of the operator takes of a large job; writes benchmarks/results/looks.json
	@$(PY) benchmarks/looks.py $(ARGS)

.PHONY: bench-lags
bench-lags: venv ## What lags by target bring to plans beside two numbers, by lags that are known; writes benchmarks/results/lags.json
	@$(PY) benchmarks/lags.py

.PHONY: bench-straggler
bench-straggler: venv ## Savings beside a straggler that is found, on virtual GPUs without a cluster; writes benchmarks/results/straggler.json
	@$(PY) benchmarks/closed_loop.py --straggler 1.2 --stages 4 --time-scale 1 --lag-ms 10 --pairs 5 $(ARGS)

.PHONY: bench-guard
bench-guard: venv ## What the agent's guards find and refuse wrongly, in 10,000 simulated jobs; writes benchmarks/results/guard.json
	@$(PY) benchmarks/guard.py $(ARGS)

# make bench-gaps ARGS="--profiles FILE ..."   with further profiles in Zeus's CSV
.PHONY: bench-gaps
bench-gaps: venv ## How far plans are above the bound where hulls are coarse; writes benchmarks/results/gaps.json
	@$(PY) benchmarks/gaps.py $(ARGS)

# make bench-agent ARGS="--zeusd PATH"   beside the peer: cargo install zeusd
.PHONY: bench-agent
bench-agent: venv bench-soak ## How soon the agent orders a clock, and what it takes of a node; writes benchmarks/results/agent.json
	@$(PY) benchmarks/agent.py $(ARGS)

# make bench-trainer ARGS="--only megatron-0.16.1"     models of these alone
.PHONY: bench-trainer
bench-trainer: venv ## What the trainer costs, and how near models come to each framework (25 minutes); writes benchmarks/results/trainer.json
	@$(PY) -m benchmarks.trainer $(ARGS)

# make bench-soak SOAK="--hours 6"
.PHONY: bench-soak
bench-soak: venv ## Does a node's agent grow in a simulated day (8 minutes)? writes benchmarks/results/soak.json
	@$(PY) benchmarks/soak.py $(SOAK)

# make bench-faults ARGS="--sequences 50 --seed 7"
.PHONY: bench-faults
bench-faults: venv ## 500 random sequences of faults on a node: is a clock left locked? writes benchmarks/results/faults.json
	@$(PY) benchmarks/faults.py $(ARGS)

.PHONY: bench-pods
bench-pods: cluster ## How soon clocks return where pods and nodes fail (root); writes benchmarks/results/pods.json
	@$(PY) benchmarks/pods.py

# make bench-operator ARGS="--scenario one-job --nodes 8 64"     smaller ones; more: python -m benchmarks.operator --help
.PHONY: bench-operator
bench-operator: venv ## What 1,024 simulated nodes ask of a real API server and the operator (hours); writes benchmarks/results/operator.json
	@$(PY) -m benchmarks.operator $(ARGS)

# make bench-injection ARGS="--batches 5"
.PHONY: bench-injection
bench-injection: cluster ## What the injector costs pods that it is not for (root); writes benchmarks/results/injection.json
	@$(PY) benchmarks/injection.py $(ARGS)

# OUT=DIR make gpu                     on a machine with a GPU, as root: what it needs stands in tests/gpu/run.sh
# make gpu ARGS=--virtual              a dry run on virtual GPUs
.PHONY: gpu
gpu: ## What only a real GPU can tell, in six minutes; writes benchmarks/results/gpu-MODEL.json
	@tests/gpu/run.sh $(ARGS)
