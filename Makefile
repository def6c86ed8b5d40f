# make demo    set up and train a small model on the made-up data set `shapes`
# make test    set up and run the tests
# make figures make the pictures in docs/ anew (trains models on `shapes`)
# make lock    after a change of requirements.in: write requirements.lock, keeping other pins
# make upgrade the same, with the newest release of everything
# Another Python (3.10 to 3.13) for the environment: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV := $(PY) install/run_uv.py

.PHONY: demo test figures lock upgrade
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(PY) tools/demo.py

test: $(VENV)/.ready
	$(PY) -m pytest

figures: $(VENV)/.ready
	$(PY) benchmarks/figures.py

$(VENV)/.ready: setup.py $(VENV)/.detectron2
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.detectron2: install/install_detectron2.py $(VENV)/.requirements
	$(PY) install/install_detectron2.py
	touch $@

# --build-constraints: packages without a wheel are built by the pinned setuptools as well.
# --reinstall: uv takes a package that it was interrupted at for an installed one.
$(VENV)/.requirements: requirements.lock $(VENV)/.uv
	touch $(VENV)/.installing
	$(UV) pip install --require-hashes --build-constraints requirements.lock \
	    $(if $(wildcard $(VENV)/.installing),--reinstall) -r requirements.lock
	rm $(VENV)/.installing
	touch $@

# uv itself comes from the lock, too: the one requirement that pip installs. A pip.conf of the
# Python that builds the environment would not be seen from inside it, hence the copy.
$(VENV)/.uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	cp "$$($(PYTHON) -c 'import sys; print(sys.prefix)')/pip.conf" $(VENV) 2>/dev/null || true
	sed -n '/^uv==/,/^    #/p' requirements.lock > $(VENV)/uv.txt
	$(PY) -m pip install --quiet --require-hashes -r $(VENV)/uv.txt
	touch $@

# Extra indexes and wheel folders are left out: what only this machine has fits no other.
lock upgrade: $(VENV)/.uv
	UV_INDEX= UV_FIND_LINKS= UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet \
	    --universal --python-version 3.10 --generate-hashes \
	    $(if $(filter upgrade,$@),--upgrade) requirements.in -o requirements.lock
