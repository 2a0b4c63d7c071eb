# Tasks for people: `make help` lists them. Needs Python 3.11 or later, make, git and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# one process per core for tests that run whole programs
JOBS ?= 2
FAST_LOOP = python -m pytest -n $(JOBS) --dist worksteal --hypothesis-profile fast -m 'not slow and not container and not slurm' --ignore tests/container
# compiled modules are kept, whatever the environment says: hundreds of tests start a Python of their own
unexport PYTHONDONTWRITEBYTECODE
UPSTREAM = git+https://github.com/nilearn/nilearn git+https://github.com/bids-standard/pybids

.DEFAULT_GOAL := help
.PHONY: help demo demo-surface test test-fast coverage test-minimum test-upstream test-container lint format validity family-wise bench boutiques docs release-check clean

help: ## list these tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SessionFX needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps pyblmm==0.1.1 # it pins an old web server
	@touch $@

demo: $(VENV)/.runtime ## simulate a small multi-session dataset, analyse it, say where the report is
	@test -d $(DEMO)/bids || $(BIN)/sessionfx-simulate $(DEMO)/bids --modulator 3
	$(BIN)/sessionfx $(DEMO)/bids $(DEMO)/sessionfx participant group --confounds scrub --modulator response_time \
	  --atlas $(DEMO)/bids/derivatives/truth/space-MNI152NLin2009cAsym_atlas-simulated_dseg.nii.gz \
	  --contrast 'incongruent - congruent' --contrast 'slower=0.5*congruent_x_response_time + 0.5*incongruent_x_response_time'
	@echo
	@echo "The report: $(abspath $(DEMO))/sessionfx/group.html"
	@echo "A participant: $(abspath $(DEMO))/sessionfx/sub-01.html"

demo-surface: $(VENV)/.runtime ## the same on the surface fsaverage5, one run per session
	@test -d $(DEMO)/surface-bids || $(BIN)/sessionfx-simulate $(DEMO)/surface-bids --surface fsaverage5 --runs 1 --volumes 100
	$(BIN)/sessionfx $(DEMO)/surface-bids $(DEMO)/surface participant group --space fsaverage5 --confounds scrub \
	  --atlas $(DEMO)/surface-bids/derivatives/truth/hemi-L_space-fsaverage5_atlas-simulated_dseg.label.gii \
	  --contrast 'incongruent - congruent'
	@echo
	@echo "The report: $(abspath $(DEMO))/surface/group.html"
	@echo "A participant: $(abspath $(DEMO))/surface/sub-01.html"

$(VENV)/.data: $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps brainspace==0.1.20 && touch $@ \
	  || echo "brainspace cannot be installed: the tests of its real series on fsaverage5 are skipped."

test: $(VENV)/.dev $(VENV)/.data lint ## set up and run the whole suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-fast: $(VENV)/.dev ## the suite without whole-program tests
	$(BIN)/$(FAST_LOOP)

coverage: $(VENV)/.dev ## the fast loop with the lines and branches of the program that it does not reach
	$(BIN)/$(FAST_LOOP) --cov --cov-report=term-missing:skip-covered

test-minimum: ## the fast loop on the lowest versions of the dependencies that pyproject.toml allows
	$(PYTHON) -m venv .venv-minimum
	$(PYTHON) tools/minimum-versions >.venv-minimum/constraints.txt
	.venv-minimum/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-minimum/constraints.txt --editable '.[test]'
	.venv-minimum/bin/$(FAST_LOOP)

test-upstream: ## the fast loop on the main branches of nilearn and pybids
	$(PYTHON) -m venv .venv-upstream
	.venv-upstream/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	.venv-upstream/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $(UPSTREAM)
	.venv-upstream/bin/$(FAST_LOOP)

test-container: $(VENV)/.dev ## build the image and test it and the platforms (needs docker or podman)
	$(BIN)/python -m pytest -m 'container or slurm'

lint: $(VENV)/.dev ## ruff, mypy, the rooms of the house, no empty or large files, spelling, CFF, workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	git ls-files -z | xargs -0 tools/check-files
	git ls-files -z 'src/*.py' | xargs -0 tools/check-calls
	$(BIN)/codespell docs/*.md *.md src tools
	$(BIN)/jactionlint --no-hints
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

format: $(VENV)/.dev ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

validity: $(VENV)/.runtime ## simulate false positives and power of the starred answer and every strategy (docs/validity.md), 10 minutes
	$(BIN)/python benchmarks/validity.py

family-wise: $(VENV)/.runtime ## simulate family-wise error of resampling (docs/family_wise.md), 10 minutes
	$(BIN)/python benchmarks/family_wise.py --output docs

bench: $(VENV)/.bench ## measure time and memory beside other software (docs/performance.md)
	$(BIN)/python benchmarks/performance.py

boutiques: $(VENV)/.runtime ## make boutiques.json and the tables of options and exit codes in docs/
	$(BIN)/python tools/boutiques.py > boutiques.json
	$(BIN)/python tools/options_table.py

docs: $(VENV)/.dev ## build the documentation into site/, with every link checked; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release-check: $(VENV)/.dev ## build sdist and wheel, check them, run the demo from the wheel in a clean environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	tools/wheel-check dist/*.whl

clean: ## remove the environment, the demo, what was built, and caches
	rm -rf $(VENV) .venv-minimum .venv-upstream $(DEMO) dist site .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
