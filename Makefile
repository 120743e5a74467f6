# Every target builds the environment first if it is missing or older than the lock.
# `make help` lists the targets; a notebook in book/notebooks/ is all it takes to declare one more.

.DEFAULT_GOAL := help
SHELL := /bin/sh
# Tables share the machine's cores among their own trainings: make -j would start several tables on the same cores.
.NOTPARALLEL:

PRESET ?= laptop
PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

PAPER := $(foreach n,1 2 3 4 5 6 7 8 9 10 11,table$(n)) $(foreach n,1 2 3 4,figure$(n)) appendix self_supervised multilabel \
	dose headline future_work
DECLARED := $(foreach name,$(PAPER),$(if $(wildcard book/notebooks/$(name).ipynb),$(name)))
UNDECLARED := $(filter-out $(DECLARED),$(PAPER))

comma := ,
quote = '$(subst ','\'',$(1))'
option = $(if $(strip $($(2))),--$(1) $(call quote,$($(2))))
list = $(subst $() $(),$(comma) ,$(strip $(1)))
ARGUMENTS = $(strip $(call option,preset,PRESET) $(call option,data,DATA) $(call option,datasets,DATASETS) \
	$(call option,seeds,SEEDS) $(call option,workers,WORKERS) $(call option,device,DEVICE) $(call option,gpus,GPUS) \
	$(call option,cluster,CLUSTER))

# The packages and the notebook kernel are those of this environment, text is UTF-8 and figures are drawn into the notebooks,
# whatever the user or the machine has installed or set.
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter
export PIP_USER := 0
export PYTHONUTF8 := 1
unexport MPLBACKEND PIP_PREFIX PIP_TARGET PYTHONHOME PYTHONIOENCODING PYTHONPATH PYTHONSAFEPATH

# A misspelt variable would be ignored in silence.
VARIABLES := PRESET DATA DATASETS SEEDS WORKERS DEVICE GPUS CLUSTER NAMES OUT LAB PYTHON TORCH VENV SHELL
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(VARIABLES) MAKE%,$(GIVEN)),$(error there is no variable $(name); the variables are $(VARIABLES)))

TARGETS := help environment tables book pdf lab test lint bench gpu-check reference clean lock
.PHONY: $(PAPER) $(TARGETS)

help: ## list the targets
	@printf '  %-12s %s\n' '<name>' 'train what is missing, execute the notebook, print the table: $(call list,$(DECLARED))'
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\n  %s\n  %s\n' 'Variables: PRESET=tiny|laptop|gpu|paper (default laptop) DATA=folder DATASETS="a;b" SEEDS=3 WORKERS=2' \
	  '           DEVICE=cpu|cuda GPUS=1 CLUSTER=file.yml; for the environment PYTHON=python3.12 TORCH=cpu'

$(DECLARED): $(STAMP)
	@$(PY) book/execute.py $@ $(ARGUMENTS)

# The appendix of the paper is three notebooks.
appendix: $(filter self_supervised multilabel,$(DECLARED))

$(UNDECLARED):
	@echo '$@ is not declared yet; available: $(call list,$(DECLARED))' >&2; exit 2

tables: $(filter table%,$(DECLARED)) ## every declared table, one after the other

book: $(STAMP) ## build the book from your results, or the reference ones: book/_build/html/index.html
	@$(PY) book/build.py

pdf: $(STAMP) ## print the book with a Chromium: book/_build/spatial-entropy.pdf
	@$(PY) book/pdf.py

lab: $(STAMP) ## open JupyterLab on the notebooks; LAB="--no-browser --port=9999" passes options on to it
	@case "$$(id -u) "$(call quote,$(LAB)) in \
	  0*--allow-root*) ;; \
	  0\ *) echo 'JupyterLab does not start as root by itself: make lab LAB=--allow-root' >&2; exit 2 ;; \
	esac; \
	$(PY) -m jupyterlab --ServerApp.root_dir=book/notebooks $(LAB)

test: $(STAMP) ## run the tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadgroup tests

lint: $(STAMP) ## check the code's style, without changing it
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

bench: $(STAMP) ## measure speed and memory: runs/bench/<device>.json
	@cd book && ../$(PY) -m bench $(call option,device,DEVICE)

gpu-check: $(STAMP) ## what a borrowed GPU is wanted for, in ten minutes, into the folder OUT; again to go on
	@bash book/gpu_check.sh $(PY) $(call quote,$(OUT)) $(call quote,$(DATA))

# The notebook is executed once more, so that its page is set beside the reference that it has just become.
reference: $(STAMP) ## make your results of PRESET (of all, or of NAMES) the committed reference in runs/reference/, with the settings they were made with
	@set -e; preset=$(call quote,$(PRESET)); \
	for name in $(or $(NAMES),$(DECLARED)); do \
	  mine="runs/$$preset/$$name"; \
	  if [ ! -f "$$mine.ipynb" ]; then continue; fi; \
	  if [ "$$mine.csv" -nt "$$mine.ipynb" ]; then echo "$$mine.ipynb is older than $$mine.csv: run make $$name first" >&2; exit 2; fi; \
	  $(PY) -m sarlib $$name $(ARGUMENTS) --keep-as-reference; \
	  $(PY) book/execute.py $$name $(ARGUMENTS); \
	  cp "$$mine.ipynb" "runs/reference/$$preset/"; \
	done

clean: ## remove the built book and your tables; keeps the finished trainings in runs/store/ and runs/reference/
	@rm -rf book/_build book/_stage build
	@for folder in runs/*/; do case $$folder in runs/store/|runs/reference/|'runs/*/') ;; *) rm -rf "$$folder" ;; esac; done
	@echo 'kept: runs/store/ (finished trainings) and runs/reference/; delete runs/store/ by hand to train again'

environment: $(STAMP) ## build .venv from requirements.lock and nothing else

# The stamp comes last, so that an interrupted installation is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	@sh book/environment.sh $(VENV) $(call quote,$(PYTHON)) $(call quote,$(TORCH))
	@touch $@

lock: $(STAMP) ## re-make requirements.lock from pyproject.toml (needs the network)
	@$(PY) -m pip install --quiet uv
	@$(PY) -m uv pip compile --universal --all-extras --python-version 3.11 pyproject.toml -o requirements.lock >/dev/null

# Files that are written by hand: no misspelt targets under make -B.
Makefile requirements.lock pyproject.toml: ;

.DEFAULT:
	@near=$$($(firstword $(wildcard $(PY)) $(PYTHON) python3) -c \
	  'import difflib, sys; print(" or ".join(difflib.get_close_matches(sys.argv[1], sys.argv[2:], cutoff=0.5)))' \
	  '$@' $(DECLARED) $(filter-out $(DECLARED),$(TARGETS)) 2>/dev/null); \
	echo "there is no target $@; $${near:+did you mean $$near? }make help lists all" >&2; exit 2
