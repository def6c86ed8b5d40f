# make demo    set up and train a small model on the made-up data set `shapes`
# make test    set up and run the tests
# make figures make the pictures in docs/ anew (trains models on `shapes`)
# make lint    set up and check style: lint, import order, format
# make lock    after a change of requirements.in: write requirements.lock, keeping other pins
# make upgrade the same, with the newest release of everything
# Another Python (3.10 to 3.13) for the environment: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet

.PHONY: demo test figures lint lock upgrade
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(PY) tools/demo.py

# A process per core, each with one thread; a file's tests stay together, as their fixtures do.
# In the files' own order, the long ones of few tests are not left to one process at the end.
test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	    --no-loadscope-reorder

figures: $(VENV)/.ready
	$(PY) benchmarks/figures.py

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/.ready: pyproject.toml setup.py $(VENV)/.detectron2
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.detectron2: install/install_detectron2.py $(VENV)/.requirements
	$(PY) install/install_detectron2.py
	touch $@

# First what builds packages that come without a wheel, so that its pinned releases build them.
$(VENV)/.requirements: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	sed -nE '/^(packaging|setuptools|wheel)==/,/^    #/p' requirements.lock > $(VENV)/build.txt
	$(PIP) --require-hashes -r $(VENV)/build.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements.lock
	touch $@

# uv writes one lock for every Python and platform, pip could not. Extra indexes and folders of
# wheels are left out: what only this machine has fits no other.
lock upgrade:
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/^    #/p' requirements.lock > $(VENV)/uv.txt
	$(PIP) --require-hashes -r $(VENV)/uv.txt
	UV_INDEX= UV_FIND_LINKS= UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile \
	    --quiet --universal --python-version 3.10 --generate-hashes \
	    $(if $(filter upgrade,$@),--upgrade) requirements.in -o requirements.lock
