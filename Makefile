# Two commands for a newcomer: `make study` and `make test`. Each makes .venv first, once.
# CONFIG=config/full.yaml lays a second config over the default; CORES=2 limits the cores.
# A package index other than pip's default is pip's own business (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL; see README.md).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help study smoke plan test test-faults test-own test-reruns test-determinism test-slurm test-load lint bench calibrate reference clean

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
CONFIG ?=
TARGET ?=
BIN := $(VENV)/bin
REFERENCE := main targets findings dsr robustness paired separability ability training settings verdicts
RELEASED := dose_response refusal_balance contest contest_circuit_breakers contest_each contest_any contest_unbounded contest_held contest_pairs attacks
SWEPT := dsr.csv robustness.csv contest.csv contest.md separability.csv settings.csv
ATTACKED := searches.csv directions.csv turning.csv attack_cost.csv
CONTESTED := $(ATTACKED) ability.csv rivals.csv rivals.md finals.csv training.csv verdicts.csv
SECOND := main findings dsr robustness paired separability ability training settings cost
SECOND_ATTACKED := contest.csv contest.md dsr.csv robustness.csv directions.csv attack_cost.csv settings.csv
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

study: $(VENV)/.installed ## Run the study (CONFIG=... for a variant), make its report, print the main table
	$(SNAKEMAKE) $(if $(CONFIG),--configfile $(CONFIG))
	@$(MAKE) --no-print-directory report

smoke: ## Run the entire graph on a tiny random model, and make its report
	@$(MAKE) --no-print-directory study CONFIG=config/smoke.yaml

plan: $(VENV)/.installed ## Add up what the jobs of a study ask for (CONFIG=... TARGET=...)
	@$(SNAKEMAKE) -n $(if $(CONFIG),--configfile $(CONFIG)) -- $(TARGET) 2>&1 \
	  | $(BIN)/python -m es2.plan

.PHONY: report
report: $(VENV)/.installed
	@results=$$($(BIN)/python -m es2.config config/config.yaml $(CONFIG)); \
	$(BIN)/snakemake --cores 1 $(if $(CONFIG),--configfile $(CONFIG)) --report $$results/report.html; \
	$(BIN)/python -m es2.findings $$results; \
	echo "The report: $$results/report.html"

test: $(VENV)/.installed ## Run the tests, a file on each core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-faults: $(VENV)/.installed ## Kill the smoke study ten times, fill its disk, damage its files: nothing is lost
	$(BIN)/python -m tests.faults

test-own: $(VENV)/.installed ## Take the smoke study's model, defence and attacks as one's own, and see that they are the same
	@$(MAKE) --no-print-directory smoke
	$(BIN)/python -m tests.own

test-reruns: $(VENV)/.installed ## Run the smoke study, then edit each module, script, setting and source and see what runs again
	$(BIN)/python -m tests.reruns

test-determinism: $(VENV)/.installed ## Run the smoke study three times and compare: equal bytes, and two threads within bounds
	$(BIN)/python -m tests.determinism

test-slurm: $(VENV)/.installed ## Run the smoke study through a SLURM of one node, one training requeued (TARGET=...)
	PYTHON=$(abspath $(BIN)/python) tests/slurm/study.sh $(TARGET)

test-load: $(VENV)/.installed ## Push 2,000 jobs of a torch-free graph through the same SLURM (JOBS=...)
	PYTHON=$(abspath $(BIN)/python) tests/slurm/load.sh $(JOBS)

lint: $(VENV)/.installed ## Check style, types and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

bench: $(VENV)/.installed ## Measure speed against plain transformers and scikit-learn (docs/performance.md)
	$(SNAKEMAKE) resources/models/smollm2_135m/manifest.json
	$(BIN)/python -m bench
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.graph

calibrate: $(VENV)/.installed ## Set a judge against human labels (DATA=folder with XSTest's files, JUDGE=name, PROMPTS=n)
	$(BIN)/python -m es2.calibration $(DATA) results/calibration$(if $(JUDGE),/$(JUDGE) $(JUDGE) config/config.yaml $(CONFIG)) \
	  $(if $(PROMPTS),--prompts $(PROMPTS))

reference: ## Copy the finished default study's and its sweeps' tables and figures to docs/reference
	mkdir -p docs/reference
	cp $(addprefix results/default/tables/,$(addsuffix .csv,$(REFERENCE))) docs/reference/
	cp $(filter-out %/cost.svg,$(wildcard results/default/figures/*.svg)) docs/reference/
	for sweep in $(RELEASED); do \
	  mkdir -p docs/reference/$$sweep; \
	  cp $(foreach table,$(SWEPT),results/default/tables/$$sweep/$(table)) docs/reference/$$sweep/; \
	  cp results/default/figures/$$sweep/*.svg docs/reference/$$sweep/; \
	done
	for sweep in contest contest_circuit_breakers contest_each contest_held contest_pairs; do \
	  cp $(foreach table,$(CONTESTED),results/default/tables/$$sweep/$(table)) docs/reference/$$sweep/; \
	done
	for sweep in attacks contest_any contest_unbounded; do \
	  cp $(foreach table,$(ATTACKED),results/default/tables/$$sweep/$(table)) docs/reference/$$sweep/; \
	done
	mkdir -p docs/reference/layers_attacked
	cp $(addprefix results/default/tables/layers_attacked/,dsr.csv directions.csv turning.csv settings.csv attack_cost.csv) \
	  results/default/figures/layers_attacked/directions.*.svg docs/reference/layers_attacked/
	mkdir -p docs/reference/trainings
	cp $(addprefix results/default/tables/trainings/,seeds.csv robustness.csv training.csv settings.csv) \
	  results/default/figures/trainings/seeds.*.svg docs/reference/trainings/
	mkdir -p docs/reference/primary
	cp $(addprefix results/default/tables/primary/,seeds.csv paired.csv robustness.csv dsr.csv training.csv separability.csv settings.csv searches.csv) \
	  results/default/figures/primary/seeds.*.svg results/default/figures/primary/robustness.*.svg docs/reference/primary/
	for sweep in trials layers early longer each_edit pool_long ablations distances ranks no_system_prompt; do \
	  mkdir -p docs/reference/$$sweep; \
	  cp results/default/tables/$$sweep/*.csv results/default/figures/$$sweep/*.svg docs/reference/$$sweep/; \
	done
	mkdir -p docs/reference/second_model
	cp $(addprefix results/second_model/tables/,$(addsuffix .csv,$(SECOND))) results/second_model/figures/*.svg docs/reference/second_model/
	mkdir -p docs/reference/second_model/attacks
	cp $(addprefix results/second_model/tables/attacks/,$(SECOND_ATTACKED)) results/second_model/figures/attacks/*.svg docs/reference/second_model/attacks/

clean: ## Remove the environment and everything that a study made
	rm -rf $(VENV) .snakemake resources logs
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@
