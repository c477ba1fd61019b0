# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# `make demo` runs the main job on a fresh machine, `make test` everything that CI runs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

venv := $(CURDIR)/.venv
bin := $(venv)/bin
build := $(CURDIR)/build
staged := $(build)/ansible_collections/hx_infra/llm
core218 := $(CURDIR)/.venv-core218

export PATH := $(bin):$(PATH):/usr/sbin:/sbin
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_CONNECTION_PLUGINS := $(CURDIR)/tests/lab/connection_plugins

# The lab needs root: loop devices and a container engine. Root has its own home and this PATH, or
# it would leave files of its own in the user's home, and not find the tools.
sudo := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo -E -H env '"PATH=$(PATH)"')
in_lab := export LAB_CONNECTION=$$($(sudo) tests/lab/engine.sh --connection) && $(sudo)
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: venv engine
venv:
	@tools/bootstrap.sh python
engine:
	@tools/bootstrap.sh lab

.PHONY: demo
demo: lab-reset ## bring llm-01 up in its drifted state behind a gateway, remediate it, show the report
	$(in_lab) $(bin)/ansible-playbook playbooks/gateway.yml
	$(in_lab) $(bin)/ansible-playbook playbooks/remediate.yml -l llm-01
	@tools/show_report.sh runs/llm-01/latest.html

.PHONY: lab lab-reset lab-destroy
lab: engine ## bring the lab up (idempotent)
	$(sudo) $(bin)/ansible-playbook tests/lab/create.yml
lab-reset: engine ## bring the drift back; ONLY=llm-01 for one host
	$(sudo) $(bin)/ansible-playbook tests/lab/reset.yml $(if $(ONLY),-e lab_only=$(ONLY))
lab-destroy: engine ## leave nothing of the lab behind
	$(sudo) $(bin)/ansible-playbook tests/lab/destroy.yml

.PHONY: test
test: engine ## everything that CI runs
	tools/lanes.sh
	$(sudo) $(bin)/ansible-playbook tests/lab/destroy.yml
lane-%: export HX_KEEP_LAB := yes
lane-%:
	$(sudo) tools/molecule.sh --lane $*

.PHONY: lint
lint: venv ## ansible-lint, ruff, shellcheck, yamllint, changelog, collection docs
	ruff check . && ruff format --check .
	tools/shell_files.sh | xargs shellcheck
	yamllint --strict .
	ansible-lint --offline
	antsibull-changelog lint
	# Without the hundred collections beside ansible-core: no documentation may name one of them.
	ANSIBLE_COLLECTIONS_SCAN_SYS_PATH=false antsibull-docs lint-collection-docs . --plugin-docs --validate-collection-refs all

.PHONY: units simulators core218 bytecode
# Of what the tests start over and over. Nothing writes any by itself: most runs are root's.
bytecode: venv
	@python -m compileall -q plugins tests/lab
units: bytecode ## unit tests: pure Python and shell, no host
	python -m pytest -p no:cacheprovider --durations=10 tests/unit
simulators simulators-%: export PYTHONPATH := $(CURDIR)/tests/lab/module_cache
simulators simulators-%: export HX_MODULE_CACHE := $(build)/module-cache
simulators: engine bytecode ## modules and plugins against the simulators, the contract suite
	@mkdir -p $(build)
	$(sudo) $(bin)/python -m pytest -p no:cacheprovider --durations=40 $(or $(FILES),tests/sim)
simulators-%: # simulators-1 to -4: a part of the files, for the lanes of `make test`
	@$(MAKE) simulators FILES="$$(ls tests/sim/test_*.py | awk 'NR % 4 == $* % 4' | xargs)"
core218: venv ## unit tests and playbook syntax with the older ansible-core that we support
	@HX_VENV=$(core218) HX_LOCK=$(CURDIR)/tools/requirements-core218.txt tools/bootstrap.sh python
	$(core218)/bin/python -m pytest -p no:cacheprovider -q tests/unit
	for playbook in playbooks/*.yml; do ANSIBLE_CONNECTION_PLUGINS= $(core218)/bin/ansible-playbook --syntax-check "$$playbook" >/dev/null; done

.PHONY: stage sanity
stage: venv
	@rm -rf $(build)/ansible_collections
	@mkdir -p $(staged)
	@git ls-files --cached --others --exclude-standard -z -- . ':!collections' ':!extensions' \
	  | xargs -0 -I{} cp --parents -P {} $(staged)/
	@cd $(staged) && git init -q . && git add -A
sanity: stage ## ansible-test sanity in a staged tree
	@tools/sanity_pip.sh
	cd $(staged) && ANSIBLE_CONFIG= ansible-test sanity --local --requirements --color no \
	  --python $$($(bin)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: molecule vllm
molecule: engine ## molecule scenarios on lab hosts; SCENARIO=ollama for one
	$(sudo) tools/molecule.sh $(SCENARIO)
vllm: engine ## the scenario with a real vLLM (0.9 GB of wheels, some minutes)
	$(sudo) tools/molecule.sh vllm

.PHONY: bench
bench: engine ## print figures and ratios (docs/performance.md); ONLY=client for one part
	$(in_lab) $(bin)/python tests/bench/run.py $(ONLY)

.PHONY: docs build import lock clean
docs: venv ## render the collection's documentation into build/docs
	tools/docs.sh $(build)/docs
build: venv ## the collection's tarball in build/
	@mkdir -p $(build)
	ansible-galaxy collection build --force --output-path $(build) .
import: build ## let galaxy-importer judge the tarball
	tools/import.sh $(build)/hx_infra-llm-*.tar.gz
lock: venv ## make the lock files anew from their .in files
	tools/lock.sh
clean: ## remove what the build made (not the lab)
	rm -rf $(build)/ansible_collections $(build)/docs $(build)/*.tar.gz .cache .ansible
