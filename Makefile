PYTHON ?= python3
VENV ?= .venv
LABEL_VENV ?= .venv-label
DEPLOY_VENV ?= .venv-deploy
PYTEST_ARGS ?=
PYTEST_WORKERS ?= -n auto --maxprocesses 4 --dist loadfile  # PYTEST_WORKERS= for one process, where --pdb works
TORTURE_ARGS ?= --kills 20 --seed 0
LABEL_ARGS ?=
BIN := $(VENV)/bin
BUNDLES := $(patsubst %/models/model.pt,%,$(sort $(wildcard bundles/*/models/model.pt)))  # those with weights
DATA ?= ../shared/data
BENCHMARKS := $(sort $(wildcard benchmarks/bench_*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test cluster-test train-smoke wheel-test release lint bench bundles download-test label-test deploy-test torture pacs-test dicom-tools \
	docs evidence evidence-super-resolution evidence-translation

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## thick-slice a template brain, restore it, write NIfTI, PNG and figures to demo_output/
	$(BIN)/diffens demo -o demo_output

test: $(VENV)/.installed  ## run the tests; PYTEST_ARGS="-m 'not slow'" for the quick ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS)

torture: $(VENV)/.installed  ## kill a folder run 20 times, finish it, compare with an undisturbed run
	PYTHONPATH=tests $(BIN)/python tests/bundles/torture.py $(TORTURE_ARGS)

cluster-test: $(VENV)/.installed  ## 1,000 made-up cases on three workers, one of them killed; then the tests of workers
	$(BIN)/python benchmarks/cohort.py
	$(BIN)/python -m pytest -q tests/bundles/test_workers.py

train-smoke: $(VENV)/.installed  ## train both stages of every bundle on small crops, a few minutes; to train_smoke_output/
	$(BIN)/python -m research.train_smoke --output_dir train_smoke_output

wheel-test: $(VENV)/.installed  ## build the wheel, install it in an empty environment and use it in an empty folder
	$(BIN)/python tests/wheel_test.py

release: $(VENV)/.installed  ## build sdist, wheel, zips, checksums, SBOM and notes, test them, to release/
	$(BIN)/python .ci/release.py

lint: $(VENV)/.installed  ## ruff, mypy and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## build the documentation site, without a network, to site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pacs-test: $(VENV)/.installed dicom-tools  ## a scan through a real PACS (Orthanc) and back, on loopback
	$(BIN)/python tests/pacs_round_trip.py

dicom-tools:  ## install the Debian packages of the DICOM checks: dicom3tools, dcmtk, Orthanc
	.ci/install-dicom-tools

bench: $(VENV)/.installed  ## run every benchmarks/bench_*.py
	@test -n "$(BENCHMARKS)" || { echo "no benchmarks/bench_*.py here" >&2; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

# The tables are begun anew: rows of the same weights that are there would be used again, whatever code made them.
RUN = $(BIN)/python -m monai.bundle run
# The configs lie in research/; metadata and logging are those of the bundle that is measured.
OF_BUNDLE = --dataset_dir $(DATA) --bundle_root $(1) --meta_file $(1)/configs/metadata.json \
	--logging_file $(1)/configs/logging.conf
SR = $(call OF_BUNDLE,bundles/diffensembler_sr)
SR_CONFIGS = research/configs/sr
TRANSLATE = $(call OF_BUNDLE,bundles/diffensembler_translate)
T_CONFIGS = research/configs/translate
TABLES = docs/results
# Two halves that do not wait for each other: OMP_NUM_THREADS=1 make -j2 evidence.
evidence: evidence-super-resolution evidence-translation  ## measure docs/results and the model cards again, on test subjects: hours

evidence-super-resolution: $(VENV)/.installed  ## the half of the super-resolution bundle
	@test -d "$(DATA)" || { echo "no data in $(DATA): set DATA" >&2; exit 1; }
	rm -f $(wildcard $(TABLES)/super_resolution*/*.csv $(TABLES)/trust/*.csv)
	$(RUN) evaluate $(SR) --config_file $(SR_CONFIGS)/evaluate.json --output_dir $(TABLES)/super_resolution \
		--update_card True --fusions "['calibrated','mean']" --dial "[[1,None],[1,None,1.25],[1,None,1.4],[1,None,1.5],[1,None,2.0],[1,None,2.5]]"
	$(RUN) evaluate $(SR) --config_file $(SR_CONFIGS)/evaluate.json --output_dir $(TABLES)/super_resolution_dial \
		--region "[80,80,80]"
	$(RUN) evaluate $(SR) --config_file $(SR_CONFIGS)/evaluate.json --output_dir $(TABLES)/super_resolution_gain \
		--split val --min_sharpness 0.5 --sharpness_axes "[0,1]" --fusions "['calibrated']" \
		--regression_weights False --settings "{'x4 pooled':{'factors':[4,4,4]}}" \
		--dial "[[1,None],[1,None,1.3],[1,None,1.4],[1,None,1.5],[1,None,1.6]]"
	$(RUN) evaluate $(SR) --config_file $(SR_CONFIGS)/evaluate.json --output_dir $(TABLES)/super_resolution_passes \
		--region "[64,64,64]" --fusions "['calibrated','mean']" --regression_weights False \
		--dial "[[1,None],[4,None],[10,None],[20,None],[50,None]]"
	$(RUN) evaluate $(SR) --config_file $(SR_CONFIGS)/evaluate.json --output_dir $(TABLES)/super_resolution_passes_gain \
		--region "[64,64,64]" --regression_weights False \
		--dial "[[1,None,1.4],[4,None,1.4],[10,None,1.4],[20,None,1.4],[50,None,1.4]]"
	$(RUN) calibrate $(SR) --config_file "['$(SR_CONFIGS)/evaluate.json','$(SR_CONFIGS)/trust.json']" \
		--output_dir $(TABLES)/trust --region "[40,40,40]" --num_samples 3
	$(RUN) check_lesions $(SR) --config_file "['$(SR_CONFIGS)/evaluate.json','$(SR_CONFIGS)/trust.json']" \
		--output_dir $(TABLES)/trust --lesion_region "[48,48,48]" --dial "[[1,None]]" --fusions "['calibrated','mean']"

evidence-translation: $(VENV)/.installed  ## the half of the translation bundle
	@test -d "$(DATA)" || { echo "no data in $(DATA): set DATA" >&2; exit 1; }
	rm -f $(wildcard $(TABLES)/translation*/*.csv $(TABLES)/trust/translation/*.csv)
	$(RUN) evaluate $(TRANSLATE) --config_file $(T_CONFIGS)/evaluate.json --output_dir $(TABLES)/translation \
		--update_card True --region "[80,80,80]" --fusions "['calibrated','mean']" --dial "[[1,None]]"
	$(RUN) evaluate $(TRANSLATE) --config_file $(T_CONFIGS)/evaluate.json --output_dir $(TABLES)/translation_dial \
		--region "[80,80,80]" --fusions "['calibrated','mean']" \
		--settings "\$$subset_sweep.some_subsets(['T1w', 'T2w', 'T1w + ce-gadolinium_T1w + T2w', 'FLAIR', 'T1w + ce-gadolinium_T1w + T2w + FLAIR'])"
	set -e; for target in T1w ce-gadolinium_T1w T2w; do $(RUN) evaluate $(TRANSLATE) --target $$target \
		--config_file $(T_CONFIGS)/evaluate.json --output_dir $(TABLES)/translation_$$target \
		--region "[80,80,80]" --fusions "['calibrated','mean']" --settings "\$$subset_sweep.all_others(@contrasts, @target)"; done
	$(RUN) calibrate $(TRANSLATE) --config_file "['$(T_CONFIGS)/evaluate.json','$(T_CONFIGS)/trust.json']" \
		--output_dir $(TABLES)/trust/translation --region "[40,40,40]" --num_samples 3 --dial "[[1,None]]"

bundles: $(VENV)/.demo  ## write a release zip of every bundle that has weights, and SHA-256, to dist/
	$(BIN)/diffens bundle pack $(BUNDLES) -o dist

download-test: $(VENV)/.installed  ## after bundles: download the zips from local servers and run them; says what it proved
	DIFFENS_DIST=dist $(BIN)/python -m pytest -q -s tests/bundles/test_download.py

label-test: $(LABEL_VENV)/.installed  ## start a real MONAI Label server with the app, and show what it promises
	PATH="$(abspath $(LABEL_VENV))/bin:$$PATH" python monailabel_app/tests/label_test.py $(LABEL_ARGS)

# MONAI Label's packages do not go together with the project's own: see monailabel_app/requirements.txt.
$(LABEL_VENV)/.installed: monailabel_app/requirements.txt
	@echo "Installing into $(LABEL_VENV): a few minutes the first time"
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_VENV)/bin/pip install -q torch==2.13.0
	$(LABEL_VENV)/bin/pip install -q --no-deps torchvision==0.28.0
	$(LABEL_VENV)/bin/pip install -q -r monailabel_app/requirements.txt
	$(LABEL_VENV)/bin/pip install -q --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
	$(LABEL_VENV)/bin/pip install -q --no-deps -e .
	@touch $@

deploy-test: $(DEPLOY_VENV)/.installed  ## run a release zip through MONAI Deploy's bundle operator, and show what holds
	$(DEPLOY_VENV)/bin/python monaideploy_app/tests/deploy_test.py

# MONAI Deploy's packages ask for CUDA ones that are not used here: see monaideploy_app/requirements.txt.
$(DEPLOY_VENV)/.installed: monaideploy_app/requirements.txt
	@echo "Installing into $(DEPLOY_VENV): a few minutes the first time"
	$(PYTHON) -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/pip install -q torch==2.13.0
	$(DEPLOY_VENV)/bin/pip install -q -r monaideploy_app/requirements.txt
	$(DEPLOY_VENV)/bin/pip install -q --no-deps holoscan-cu13==4.2.0 monai-deploy-app-sdk==4.0.0
	@touch $@

# Two stamps: what the demo needs, and on top of it what development needs.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@
