# make demo  installs everything and runs the main job on sample_data/
# make test  installs everything, lints, and runs the tests (what CI runs)
# make types holds the annotations against the code (basedpyright)
# make mini  trains the small base of models/mini from nothing: minutes on a GPU, hours on two cores
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a file's tests stay together, as they share what they made
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/installed

# What Python has compiled is kept whatever the environment says, or every process would compile torch anew: 14 s of CPU each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install test browser quick lint types demo mini lock clean
install: $(INSTALLED)

# uv resolves the ordinary torch build in about a minute, and takes nothing from the network when all is there.
$(INSTALLED): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

test: lint browser
	$(PYTEST)

# The page is tried in a browser where there is one. CI, which may install system parts, gets one; whoever runs the tests is left alone.
browser:
	@test -z "$$CI" || command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	|| echo "no Chromium could be installed: the tests of the page in a browser are left out"

quick: lint
	$(PYTEST) -m "not slow"

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Brings its own node, 60 MB: more than those need who only run the tests.
types: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python basedpyright==1.40.2
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Half the time in bf16, on processors that multiply in it.
demo: install
	$(BIN)/python -m lorakit run sample_data/photos -o demo --base mini --kind object --trigger zwx --class-word toy \
	--set train.preservation=1 --set train.caption_dropout=0.2 --set sample.every=0 \
	--set train.precision=$$(grep -qs avx512_bf16 /proc/cpuinfo && echo bf16 || echo auto)
	$(BIN)/python -m lorakit grid demo --prompt "a photo of a zwx toy on grass" --prompt "a photo of a zwx toy on a white table, studio light" \
	--prompt "a photo of a toy on grass" --prompt "a photo of a green tree on sand"

mini: install
	$(BIN)/python -m models.mini.train --work build/mini --helpers 1

lock: install
	$(BIN)/uv pip compile --quiet pyproject.toml --extra test --universal --python-version 3.10 --no-header --no-annotate --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) demo build dist .pytest_cache
