# Every target builds the environment first if it is missing or older than the lock.
# `make help` lists the targets; a notebook in book/notebooks/ is all it takes to declare one more.

.DEFAULT_GOAL := help
SHELL := /bin/sh

PRESET ?= laptop
PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

PAPER := $(foreach n,1 2 3 4 5 6 7 8 9 10 11,table$(n)) $(foreach n,1 2 3 4,figure$(n)) appendix
DECLARED := $(foreach name,$(PAPER),$(if $(wildcard book/notebooks/$(name).ipynb),$(name)))
UNDECLARED := $(filter-out $(DECLARED),$(PAPER))

comma := ,
quote = '$(subst ','\'',$(1))'
option = $(if $(strip $($(2))),--$(1) $(call quote,$($(2))))
list = $(subst $() $(),$(comma) ,$(strip $(1)))
ARGUMENTS = $(strip $(call option,preset,PRESET) $(call option,data,DATA) $(call option,datasets,DATASETS) \
	$(call option,seeds,SEEDS) $(call option,workers,WORKERS) $(call option,device,DEVICE) $(call option,gpus,GPUS) \
	$(call option,cluster,CLUSTER))

# The packages and the notebook kernel are those of this environment, whatever the user or the machine has installed beside it.
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter
unexport PYTHONHOME PYTHONPATH

.PHONY: help environment $(PAPER) tables book lab test bench gpu-check reference clean lock

help: ## list the targets
	@printf '  %-12s %s\n' '<name>' 'train what is missing, execute the notebook, print the table: $(call list,$(DECLARED))'
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\n  %s\n' 'Variables: PRESET=tiny|laptop|gpu|paper (default laptop) DATA=folder DATASETS="a;b" SEEDS=3 WORKERS=2 DEVICE=cpu|cuda GPUS=1 CLUSTER=file.yml'

$(DECLARED): $(STAMP)
	@$(PY) book/execute.py $@ $(ARGUMENTS)

$(UNDECLARED):
	@echo '$@ is not declared yet; available: $(call list,$(DECLARED))' >&2; exit 2

tables: $(filter table%,$(DECLARED)) ## every declared table, one after the other

book: $(STAMP) ## build the book from your results, or the reference ones: book/_build/html/index.html
	@$(PY) book/build.py

lab: $(STAMP) ## open JupyterLab on the notebooks
	@$(PY) -m jupyterlab --ServerApp.root_dir=book/notebooks

test: $(STAMP) ## run the tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadgroup tests

bench: $(STAMP) ## measure speed and memory: runs/bench/<device>.json
	@$(PY) -m sarlib.bench $(call option,device,DEVICE)

gpu-check: $(STAMP) ## all that a borrowed GPU is wanted for, in ten minutes, into the folder OUT; again to go on
	@$(PY) -m sarlib.gpu_check $(call option,out,OUT) $(call option,data,DATA) $(call option,device,DEVICE)

reference: $(STAMP) ## make your results of PRESET (of all, or of NAMES) the committed reference in runs/reference/, with the settings they were made with
	@set -e; preset=$(call quote,$(PRESET)); \
	for name in $(or $(NAMES),$(DECLARED)); do \
	  mine="runs/$$preset/$$name"; \
	  if [ ! -f "$$mine.ipynb" ]; then continue; fi; \
	  if [ "$$mine.csv" -nt "$$mine.ipynb" ]; then echo "$$mine.ipynb is older than $$mine.csv: run make $$name first" >&2; exit 2; fi; \
	  $(PY) -m sarlib $$name $(ARGUMENTS) --keep-as-reference; \
	  cp "$$mine.ipynb" "runs/reference/$$preset/"; \
	done

clean: ## remove the built book and your tables; keeps the finished trainings in runs/store/ and runs/reference/
	@rm -rf book/_build book/_stage build
	@for folder in runs/*/; do case $$folder in runs/store/|runs/reference/|'runs/*/') ;; *) rm -rf "$$folder" ;; esac; done
	@echo 'kept: runs/store/ (finished trainings) and runs/reference/; delete runs/store/ by hand to train again'

environment: $(STAMP) ## build .venv from requirements.lock and nothing else

# uv installs the lock in seconds; where it cannot be had or fails, pip does the same in minutes. The stamp comes last, so that
# an interrupted installation is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	@python=$(call quote,$(PYTHON)); \
	for candidate in $${python:-python3.11 python3 python3.12 python3.13 python}; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo 'no Python 3.11, 3.12 or 3.13 found: install one or name it with PYTHON=' >&2; exit 2; fi; \
	echo "building $(VENV) with $$found" >&2; \
	$$found -m venv $(VENV)
	@$(PY) -m pip install --quiet uv && $(PY) -m uv pip install --python $(PY) -r requirements.lock -e . \
	|| { echo 'uv did not succeed; installing with pip' >&2; $(PY) -m pip install -r requirements.lock -e .; }
	@touch $@

lock: $(STAMP) ## re-make requirements.lock from pyproject.toml (needs the network)
	@$(PY) -m pip install --quiet uv
	@$(PY) -m uv pip compile --universal --all-extras --python-version 3.11 pyproject.toml -o requirements.lock >/dev/null
