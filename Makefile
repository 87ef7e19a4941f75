# Needs Python 3.11, its venv module and make. Each target sets up what it needs, once:
# .venv-service/ holds the service alone (no torch), .venv/ holds everything, .venv-audit/ one tool.

PYTHON  ?= python3
PRODUCT ?=
DATA    ?=
RUN     ?= runs/$(PRODUCT)
BUNDLES ?= models/bundles
EXTRAS  ?=

SERVICE := .venv-service/bin/python
ALL     := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help serve check lint fast test audit bench train said demo clean
.DELETE_ON_ERROR:

help: ## show these lines
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 9

serve: .venv-service/ready$(if $(EXTRAS),-$(EXTRAS)) ## [EXTRAS=records,mqtt,telemetry]: serve the bundles at SERVICE_HOST:SERVICE_PORT (127.0.0.1:8000)
	$(SERVICE) -m service

check: lint fast ## style, types, import contracts and the fast tests: under two minutes

lint: .venv/ready ## style, types, import contracts and whether the dependencies fit, alone
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --strict
	.venv/bin/lint-imports
	$(ALL) -m pip check

fast: .venv/ready ## the fast tests alone
	$(ALL) -m pytest -m "not slow"

test: .venv/ready ## every test, the slow ones too
	$(ALL) -m pytest

audit: .venv-audit/ready ## known weaknesses of the pinned dependencies; the only check that needs a network
	@.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip \
	    --progress-spinner off 2> .venv-audit/said || { cat .venv-audit/said; \
	    grep -q '^Found ' .venv-audit/said && exit 1; \
	    echo "Not audited: what is known of each package cannot be reached from here"; exit 3; }

bench: .venv/ready ## measure, in a quarter of an hour: every figure is a ratio taken in one run
	$(ALL) -m tests.bench
	$(ALL) -m tests.bench.steadiness

train: said .venv/ready ## DATA=folder PRODUCT=name [RECIPE=…] [LICENCE=…] [CITATION=…]: from pictures to a sealed bundle
	$(ALL) -m training import --data "$(DATA)" --product "$(PRODUCT)" --run "$(RUN)" \
	    $(if $(RECIPE),--recipe "$(RECIPE)") \
	    $(if $(LICENCE),--licence "$(LICENCE)") $(if $(CITATION),--citation "$(CITATION)")
	$(ALL) -m training fit --run "$(RUN)"
	$(ALL) -m training export --run "$(RUN)"
	$(ALL) -m training evaluate --run "$(RUN)"
	$(ALL) -m training seal --run "$(RUN)" --to "$(BUNDLES)"

said:
	@test -n "$(DATA)" -a -n "$(PRODUCT)" \
	    || { echo "Say which pictures, and of which product: make train DATA=folder PRODUCT=name"; exit 2; }

demo: .venv/ready ## draw the sample pictures, find their defects and make a new one, into demo/
	$(ALL) -m training.renderer samples --samples
	$(ALL) -m models detect --product brushed-plate samples/plate.jpg --out demo/
	$(ALL) -m models synthesize --product brushed-plate samples/normal.jpg --seed 7 --out demo/

clean: ## remove the environments and what was made from the sources
	rm -rf .venv .venv-service .venv-audit .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build demo *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-service/ready: pyproject.toml constraints.txt
	$(call set_up,.venv-service,service,half a minute and 0.4 GB)

.venv-service/ready-%: .venv-service/ready
	$(call set_up,.venv-service,service$(comma)$*,a few seconds)

.venv/ready: pyproject.toml constraints.txt
	$(call set_up,.venv,service$(comma)training$(comma)dev,two to ten minutes and 6 GB for torch)

.venv-audit/ready: Makefile
	@$(PYTHON) -m venv --clear .venv-audit
	@.venv-audit/bin/pip install -qq --disable-pip-version-check pip-audit==2.10.1
	@touch $@

comma := ,

define set_up
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "Python 3.11 or newer is needed. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
@echo "Setting up $(1)/ (the first time: $(3))"
@test -x $(1)/bin/pip || $(PYTHON) -m venv --clear $(1) || { rm -rf $(1); \
    echo "Python cannot make environments here. On Debian: apt-get install python3-venv"; exit 1; }
@$(1)/bin/pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[$(2)]'
@touch $@
endef
