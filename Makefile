# make help explains. Everything runs in a virtual environment that the first target makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two notebooks run side by side, and small tensors gain nothing from threads: one core each.
ONE := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
.DEFAULT_GOAL := help
.PHONY: help setup book test notebooks pytest tables site lint audit sync check prepare colab

help:       ## this list
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(VENV)/.installed  ## a virtual environment with the exact versions of constraints.txt
$(VENV)/.installed: settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is wanted; $(PYTHON) is $$($(PYTHON) -V). Try make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || \
		{ echo "no venv module here, using virtualenv"; rm -rf $(VENV); \
		  $(PYTHON) -m pip install -q --target $(VENV)-maker virtualenv && \
		  PYTHONPATH=$(VENV)-maker $(PYTHON) -m virtualenv -q $(VENV) && rm -rf $(VENV)-maker; }
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[offline,dev]'
	@touch $@

book: setup  ## the main job: make the results again, compare with the recorded ones, render the book
	$(BIN)/matchbook reproduce
	@$(ONE) $(BIN)/python site/build.py
	@echo "The book is at $(CURDIR)/_site/index.html"

test: setup site pytest  ## every notebook top to bottom, then the tests (the site's among them)

notebooks: setup  ## run every notebook from top to bottom
	$(ONE) $(BIN)/python site/build.py --run-only

pytest: setup
	$(ONE) MATCHBOOK_SITE=$(CURDIR)/_site $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

site: setup  ## run the notebooks and render the book into _site
	$(ONE) $(BIN)/python site/build.py

tables: setup  ## fill what is made from run files: tables of the front page and the README, shipped thresholds
	$(BIN)/matchbook tables --write nbs/index.ipynb > /dev/null
	$(BIN)/python site/readme.py
	$(BIN)/matchbook data --markdown > data/README.md
	$(BIN)/python -c 'from matchbook.products.untrained import ship_thresholds; ship_thresholds()'

lint: setup  ## ruff on notebooks and tests
	$(BIN)/ruff check

# pip-audit stays out of the environment it looks at. It asks PyPI's service of known holes, version by version.
service := https://pypi.org/pypi/pip/json
define told   # of how many packages the service knew anything: none found among none says nothing
import json, sys
found = json.load(open(sys.argv[1]))["dependencies"]
seen = [one for one in found if "skip_reason" not in one]
print(f"audit: {len(seen)} of {len(found)} packages were looked at" + ("" if seen else "; SKIPPED, the service knows none"))
for one in seen:
    for hole in one["vulns"]: print(one["name"], one["version"], hole["id"])
endef
export told
audit: setup  ## known security holes in the versions of constraints.txt (says so when nobody answers)
	@if ! $(BIN)/python -c "from urllib.request import urlopen; urlopen('$(service)', timeout=20)" 2>/dev/null; then \
		echo "audit: SKIPPED, $(service) does not answer; nothing was looked at"; \
	else \
		$(BIN)/python -m pip install -q --target $(VENV)-audit pip-audit && \
		{ PYTHONPATH=$(VENV)-audit $(BIN)/python -m pip_audit --no-deps --disable-pip -r constraints.txt \
			--progress-spinner off -f json -o $(VENV)-audit/found.json; code=$$?; \
		  $(BIN)/python -c "$$told" $(VENV)-audit/found.json; exit $$code; }; \
	fi

prepare: setup  ## before a commit: clean, export, lint, test, tables
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	$(MAKE) lint tables test

# What git holds must be what the sources make: exported code, clean notebooks, tables, cards.
sync: setup lint
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	@$(MAKE) --no-print-directory tables
	@test -z "$$(git status --porcelain)" || { git status --short; echo "not in sync: make prepare, and commit"; exit 1; }

check: sync test  ## all that CI does: in sync, then make test, then nothing changed
	@test -z "$$(git status --porcelain)" || { git status --short; echo "the tests changed these files"; exit 1; }

# Twice a fresh environment with the wheel alone, and every chapter in it: most of an hour, so not part of check.
colab: setup  ## the chapters as Colab would run them, with the oldest and the newest transformers allowed
	$(BIN)/python tests/colab.py
