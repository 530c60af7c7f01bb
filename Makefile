# make demo    the main job, from checkpoint to molecular dynamics, and a report
# make test    every test; make test-mace: those of the MACE family, whose package excludes SevenNet's, in .venv-mace
# make quick   the unit tests that are fast, and one parity table, once built below 90 s
# make lint    formatting and types
# make docs    the documentation site, in build/site; a broken link is an error
# make sanitize    the C++ tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
# make wheel    dist/: the source distribution, and a wheel that is installed without a compiler; make test-wheel: that it is
# make oldest-torch    the C++ tests with the oldest torch that pyproject.toml allows (900 MB)
# make gpu-pack    build/gpu: what the first run on a machine with a GPU needs, for GPU_PYTHON=3.12 there (docs/gpu.md)
# make test-torchforce    TorchForce files in openmmtorch, which needs 7 GB of its own
# make test-debian-lammps    Debian 13's LAMMPS, from its packages (300 MB)
#
# All work from a clean clone: they create .venv, install what constraints.txt pins and build the C++ against it.
# Another torch: make demo TORCH=torch==2.12.0        Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
# Processes that run tests; each may start programs of several ranks.
JOBS   ?= 2
TORCH  ?=
VENV   := .venv
BIN    := $(VENV)/bin
MACE   := $(VENV)-mace
SOURCES := $(shell find csrc python cmake third_party -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml

# Releases of torch that the wheel works with: make wheel TORCHES="2.13.0 2.14.1". Others than the installed one are downloaded.
TORCHES ?= $(patsubst torch==%,%,$(filter torch==%,$(shell cat $(VENV)/constraints.txt 2> /dev/null || cat constraints.txt)))

.PHONY: demo test quick docs gpu-pack test-mace test-torchforce wheel test-wheel test-debian-lammps sanitize sanitize-address sanitize-thread oldest-torch lint build clean

demo: build
	$(BIN)/python examples/demo.py
	@echo "mlip and lmp in this shell: . $(BIN)/activate"

test: build
	$(BIN)/ctest --test-dir $(VENV)/build --output-on-failure -j $(JOBS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile
	$(MAKE) test-mace

quick: build
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" tests/unit tests/engines/test_check.py::test_green

test-mace: $(MACE)/built
	$(MACE)/bin/python -m pytest -n $(JOBS) tests/families/test_mace.py

# TorchForce files in PyPI's openmmtorch, which wants torch 2.9: an environment of its own, of 7 GB.
test-torchforce: build $(VENV)-torchforce/installed
	$(BIN)/python -m pytest tests/engines/test_openmmtorch.py --torchforce-python $(VENV)-torchforce/bin/python

$(VENV)-torchforce/installed: constraints-torchforce.txt
	$(PYTHON) -m venv $(VENV)-torchforce
	$(VENV)-torchforce/bin/python -m pip install -q -r constraints-torchforce.txt
	touch $@

wheel: build
	$(BIN)/python cmake/release_wheel.py $(VENV) dist $(TORCHES)

# In an environment of its own with what pip takes for the wheel, and with no compiler on the PATH.
test-wheel: wheel
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install -q -c $(VENV)/constraints.txt torch lammps mpich openmm dist/*.whl
	$(BIN)/python -m pytest tests/engines/test_wheel.py --wheel-python $(VENV)-wheel/bin/python

test-debian-lammps: build
	cmake/debian_lammps.sh $(VENV)-debian
	$(BIN)/python -m pytest tests/engines/test_debian_lammps.py --debian-root $(VENV)-debian

sanitize: sanitize-address sanitize-thread

# The library and its C++ tests alone, in a folder of their own. A finding ends the program, and so fails its test.
sanitize-address sanitize-thread: sanitize-%: $(VENV)/installed
	$(BIN)/cmake -G Ninja -S . -B $(VENV)/$@ -DMLIP_SANITIZE=$* -DMLIP_BUILD_TESTS=ON \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja > /dev/null
	$(BIN)/cmake --build $(VENV)/$@ --target unit_tests
	$(BIN)/ctest --test-dir $(VENV)/$@ --output-on-failure

oldest-torch: build
	$(BIN)/python cmake/oldest_torch.py $(VENV)/oldest-torch

# Without a wheel of mlip-deploy, which is compiled there, for the torch that is there.
GPU_PYTHON ?= 3.12
gpu-pack: build
	mkdir -p build
	[ -e build/7net-0.mlip.pt ] || $(BIN)/mlip export sevennet 7net-0 -o build/7net-0.mlip.pt
	$(BIN)/python tools/gpu/pack.py build/gpu --python $(GPU_PYTHON) --artifact build/7net-0.mlip.pt

lint: build
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/*.h' 'tests/*.cpp')

# The search needs a server: python3 -m http.server -d build/site
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

build: $(VENV)/built

$(VENV)/constraints.txt: constraints.txt
	mkdir -p $(VENV)
	if [ -n "$(TORCH)" ]; then grep -v '^torch==' constraints.txt > $@; echo "$(TORCH)" >> $@; else cp constraints.txt $@; fi

# torch first: a bare dependency on it would let pip choose another build.
$(VENV)/installed: $(VENV)/constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q $$(grep '^torch==' $(VENV)/constraints.txt)
	$(BIN)/python cmake/requirements.py | xargs -d '\n' $(BIN)/python -m pip install -q -c $(VENV)/constraints.txt cmake ninja
	$(BIN)/python -m pip install -q --no-deps -c $(VENV)/constraints.txt nequix torchani so3krates-torch mattersim orb-models torchmd-net \
	  'fairchem-core; python_version >= "3.11"' 'matgl; python_version >= "3.11"'
	touch $@

# Without isolation: the libraries must see the very torch, LAMMPS and OpenMM that they will run with.
$(VENV)/built: $(VENV)/installed $(SOURCES) $(wildcard tests/unit/*.cpp tests/unit/*.h) Makefile
	rm -rf $(VENV)/wheel
	$(BIN)/python -m pip wheel -q --no-build-isolation --no-deps -w $(VENV)/wheel \
	  -C build-dir=$(VENV)/build -C cmake.define.MLIP_BUILD_TESTS=ON -C cmake.define.MLIP_TORCHES= .
	$(BIN)/python -m pip install -q --no-deps --force-reinstall $(VENV)/wheel/*.whl
	touch $@

# The same compiled package beside MACE instead of SevenNet.
$(MACE)/installed: constraints-mace.txt $(VENV)/constraints.txt pyproject.toml
	$(PYTHON) -m venv $(MACE)
	grep -vE '^(sevenn|e3nn)==' $(VENV)/constraints.txt | cat - constraints-mace.txt > $(MACE)/constraints.txt
	$(MACE)/bin/python -m pip install -q --upgrade pip
	$(MACE)/bin/python -m pip install -q $$(grep '^torch==' $(MACE)/constraints.txt)
	$(MACE)/bin/python cmake/requirements.py mace | xargs -d '\n' $(MACE)/bin/python -m pip install -q -c $(MACE)/constraints.txt
	touch $@

$(MACE)/built: $(MACE)/installed $(VENV)/built
	$(MACE)/bin/python -m pip install -q --no-deps --force-reinstall $(VENV)/wheel/*.whl
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* build demo dist
