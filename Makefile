# What developers and CI run. Everything generated lands in build/; a second run does only what changed.
#
#   make PYTHON=python3.12 test    another interpreter (the virtual environment is made anew when it changes)
#   make FUZZ_S=600 fuzz           seconds per fuzzer
#   make PYTEST_ARGS="-k overlay" test

PYTHON ?= python3
CLANG ?= 14
FUZZ_S ?= 60
JOBS ?= $(shell nproc)
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := build/venv
STAMPS := build/stamps
VENV_PYTHON := $(VENV)/bin/python
CLANGXX := clang++-$(CLANG)

PACKAGE_SOURCES := $(shell find python cpp -type f -not -name '*.pyc' -not -path 'cpp/doc/*') \
  CMakeLists.txt README.md LICENSE
CXX_SOURCES := $(shell find cpp tests benchmarks -name '*.cpp')
CXX_HEADERS := $(shell find cpp tests benchmarks -name '*.hpp')
FUZZERS = $(patsubst tests/fuzz/%_fuzz.cpp,%,$(wildcard tests/fuzz/*_fuzz.cpp))
BUILD_REQUIRES = $(shell sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | sed 's/", "/" "/g')

DEBIAN_BUILD := g++ cmake ninja-build ccache python3-dev python3-venv libgtest-dev libgmock-dev
DEBIAN_BENCH := libbenchmark-dev
DEBIAN_CHECK := clang-$(CLANG) libclang-rt-$(CLANG)-dev clang-tidy-$(CLANG) clang-format-$(CLANG) $(DEBIAN_BENCH)

step = @printf '\n==> %s\n' '$(1)'
# Rewrites the target only when the text changed, so that what depends on it is rebuilt only then.
keep = mkdir -p $(@D); cat >$@.new; if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
shown := ^ *\[[0-9]+/[0-9]+\]|[Ee]rror|[Ww]arning:|^(Collecting|Installing collected|Successfully)
# Runs a long build, shows its compiler lines and problems, and everything when it fails.
watched = mkdir -p build/log; $(2) 2>&1 | tee build/log/$(1).log \
  | (grep --line-buffered -E '$(shown)' || true) \
  || { tail -n 100 build/log/$(1).log; echo "failed; the whole output: build/log/$(1).log"; exit 1; }
cmake_configure = cmake -S . -B $(1) -G Ninja --log-level=WARNING $(2)
# The long form: pip before 23.1, as on Debian 12, does not know -C.
settings = $(addprefix --config-settings ,$(1))
ctest_run = ctest --test-dir $(1) --no-tests=error --output-on-failure -j $(JOBS)

# Installs the packages of its argument that are missing; silent, quick and offline when none is.
define install_debian
if ! command -v dpkg-query >/dev/null; then \
  echo "Not a Debian system: make sure the equivalents of these are installed: $(1)"; exit 0; \
fi; \
missing=(); \
for package in $(1); do \
  dpkg-query -W -f='$${db:Status-Abbrev}' "$$package" 2>/dev/null | grep -q '^.i' || missing+=("$$package"); \
done; \
[ $${#missing[@]} -gt 0 ] || exit 0; \
printf '\n==> %s\n' "Installing Debian packages: $${missing[*]}"; \
as_root=(env DEBIAN_FRONTEND=noninteractive); \
if [ "$$(id -u)" != 0 ]; then \
  command -v sudo >/dev/null || { echo "Run as root, or install sudo: apt-get install $${missing[*]}"; exit 1; }; \
  as_root=(sudo "$${as_root[@]}"); \
fi; \
"$${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -q; \
"$${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "$${missing[@]}"
endef

.PHONY: help demo test bench sanitize sanitize-address sanitize-thread fuzz lint format deps deps-bench deps-check \
        package cpp-tests dist clean FORCE

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 12

demo: package  ## the rate limiter under real HTTP traffic, then side by side with plain Python
	$(call step,Demo)
	$(VENV_PYTHON) -m peercore demo $(DEMO_ARGS)

test: package cpp-tests  ## C++ unit tests, then pytest over tests/
	$(call step,C++ unit tests and fuzz regressions)
	$(call ctest_run,build/unit)
	$(call step,Python tests)
	$(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

# --- what is needed ---------------------------------------------------------------------------------------------------

deps:  ## install the Debian packages that demo and test need, where missing
	@$(call install_debian,$(DEBIAN_BUILD))

deps-bench: deps
	@$(call install_debian,$(DEBIAN_BENCH))

deps-check: deps  ## those of bench, lint, sanitize and fuzz as well
	@$(call install_debian,$(DEBIAN_CHECK))

$(STAMPS)/interpreter: FORCE
	@$(PYTHON) -c 'import sys; print(sys.base_prefix, sys.version)' | { $(keep); }

$(STAMPS)/venv: $(STAMPS)/interpreter | deps
	$(call step,Virtual environment $(VENV))
	@rm -rf $(VENV) build/asan/venv
	$(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --disable-pip-version-check $(BUILD_REQUIRES)
	@touch $@

# The list as well as the files: a deleted module has to disappear from the installed package too.
$(STAMPS)/package-files: FORCE
	@printf '%s\n' $(sort $(PACKAGE_SOURCES)) | { $(keep); }

# Installed, not editable: the tests see what users get. README.md and LICENSE are part of its metadata.
$(STAMPS)/package: $(PACKAGE_SOURCES) pyproject.toml $(STAMPS)/package-files $(STAMPS)/venv
	$(call step,Building and installing the package (the first time a minute or two))
	@$(call watched,package,$(VENV_PYTHON) -m pip install -v --disable-pip-version-check --no-build-isolation \
	  $(call settings,build-dir=build/wheel cmake.define.PEERCORE_WERROR=ON) ".[test]")
	@touch $@

package: $(STAMPS)/package

cpp-tests: | deps
	$(call step,Building the C++ tests)
	@$(call cmake_configure,build/unit,-DPEERCORE_PYTHON=OFF)
	@cmake --build build/unit

# --- measuring --------------------------------------------------------------------------------------------------------

# The installed package names what an extra needs: nothing is built again.
$(STAMPS)/extra-%: pyproject.toml $(STAMPS)/venv | $(STAMPS)/package
	$(call step,Python packages for $*)
	$(VENV_PYTHON) -m pip install --disable-pip-version-check "peercore[$*]"
	@touch $@

bench: deps-bench $(STAMPS)/package $(STAMPS)/extra-bench  ## the benchmark; report.json and report.png in build/bench/
	$(call step,Building the C++ benchmarks)
	@$(call cmake_configure,build/bench,-DPEERCORE_PYTHON=OFF -DPEERCORE_TESTS=OFF -DPEERCORE_BENCHMARKS=ON)
	@cmake --build build/bench
	$(call step,Benchmark)
	$(VENV_PYTHON) -m peercore bench --json build/bench/report.json --plot build/bench/report.png $(BENCH_ARGS)

# --- checking ---------------------------------------------------------------------------------------------------------

sanitize: sanitize-address sanitize-thread  ## C++ tests and pytest under ASAN + UBSAN, C++ tests under TSAN

# A second environment on top of the first: only the instrumented package is its own.
$(STAMPS)/asan-package: $(STAMPS)/package | deps-check
	$(call step,Building the package with ASAN and UBSAN)
	@test -x build/asan/venv/bin/python || $(VENV_PYTHON) -m venv --without-pip build/asan/venv
	@site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	  $(VENV_PYTHON) -c "$$site" >"$$(build/asan/venv/bin/python -c "$$site")/base.pth"
	@$(call watched,asan-package,build/asan/venv/bin/python -m pip install -v --disable-pip-version-check \
	  --no-build-isolation --no-deps --ignore-installed $(call settings,build-dir=build/asan/wheel install.strip=false \
	  cmake.build-type=RelWithDebInfo cmake.define.PEERCORE_SANITIZE=address cmake.define.CMAKE_CXX_COMPILER=$(CLANGXX)) .)
	@touch $@

# Left out: by their marker, tests that measure memory, because a sanitizer's own memory would be measured with it; and a
# test that starts `python -I`, which ignores PYTHONMALLOC: LeakSanitizer does not see into CPython's own allocator and
# takes what is referenced only from there for lost, with and without this package.
NOT_SANITIZED := -m "not rss" \
  --deselect tests/python/test_run.py::test_isolated_interpreter_gets_no_folder_of_a_script
sanitize-address: $(STAMPS)/asan-package
	$(call step,C++ tests under ASAN and UBSAN)
	@$(call cmake_configure,build/asan/cpp,-DCMAKE_CXX_COMPILER=$(CLANGXX) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPEERCORE_SANITIZE=address -DPEERCORE_PYTHON=OFF)
	@cmake --build build/asan/cpp
	$(call ctest_run,build/asan/cpp)
	$(call step,Python tests under ASAN and UBSAN with leak check)
	LD_PRELOAD=$$(clang-$(CLANG) -print-file-name=libclang_rt.asan-$$(uname -m).so) PYTHONMALLOC=malloc \
	  ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  LSAN_OPTIONS=suppressions=$(CURDIR)/tests/leak_suppressions.txt:print_suppressions=0 \
	  build/asan/venv/bin/python -m pytest $(NOT_SANITIZED) $(PYTEST_ARGS)

sanitize-thread: | deps-check
	$(call step,C++ tests under TSAN)
	@$(call cmake_configure,build/tsan,-DCMAKE_CXX_COMPILER=$(CLANGXX) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPEERCORE_SANITIZE=thread -DPEERCORE_PYTHON=OFF)
	@cmake --build build/tsan
	$(call ctest_run,build/tsan)

fuzz: | deps-check  ## every fuzzer for FUZZ_S seconds (60); the corpus stays in build/fuzz/corpus
	$(call step,Building the fuzzers)
	@$(call cmake_configure,build/fuzz,-DCMAKE_CXX_COMPILER=$(CLANGXX) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPEERCORE_FUZZ=ON -DPEERCORE_PYTHON=OFF -DPEERCORE_TESTS=OFF)
	@cmake --build build/fuzz
	@for name in $(FUZZERS); do \
	  printf '\n==> Fuzzing %s for %s s\n' "$$name" "$(FUZZ_S)"; \
	  mkdir -p build/fuzz/corpus/$$name build/fuzz/finds/$$name build/log; \
	  regressions=tests/fuzz/regressions/$$name; [ -d $$regressions ] || regressions=; \
	  build/fuzz/tests/fuzz/$${name}_fuzz -max_total_time=$(FUZZ_S) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    -verbosity=1 -artifact_prefix=build/fuzz/finds/$$name/ build/fuzz/corpus/$$name $$regressions \
	    2>&1 | tee build/log/fuzz-$$name.log | grep -vE '^#[0-9]+\s+(NEW|REDUCE)' \
	  || { echo "Copy build/fuzz/finds/$$name/* to tests/fuzz/regressions/$$name/: ctest then runs it"; exit 1; }; \
	done

lint: $(STAMPS)/package $(STAMPS)/extra-lint | deps-check  ## clang-format, clang-tidy, ruff, mypy, shape of the tree
	$(call step,clang-format)
	@clang-format-$(CLANG) --dry-run -Werror $(CXX_SOURCES) $(CXX_HEADERS)
	$(call step,ruff)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	$(call step,mypy)
	@$(VENV)/bin/mypy
	$(call step,Shape of the tree)
	@$(VENV_PYTHON) -m pytest -q tests/python/test_shape.py
	$(call step,clang-tidy (files that did not change are not looked at again))
	@$(call cmake_configure,build/tidy,-DCMAKE_CXX_COMPILER=$(CLANGXX) -DPEERCORE_BENCHMARKS=ON \
	  -DPython_EXECUTABLE=$(CURDIR)/$(VENV_PYTHON))
	@$(MAKE) -j $(JOBS) $(CXX_SOURCES:%=build/tidy/checked/%)

build/tidy/checked/%: % $(CXX_HEADERS) .clang-tidy tests/.clang-tidy
	@echo $<
	@mkdir -p $(@D)
	@clang-tidy-$(CLANG) --quiet -p build/tidy $< 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

format: $(STAMPS)/extra-lint | deps-check  ## rewrite the sources as lint wants them
	clang-format-$(CLANG) -i $(CXX_SOURCES) $(CXX_HEADERS)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

dist: $(STAMPS)/package  ## sdist, the wheel built from it, and that wheel tried in an empty environment: build/dist
	$(call step,Source distribution)
	@rm -rf build/dist && mkdir -p build/dist
	@$(VENV_PYTHON) -c 'from scikit_build_core.build import build_sdist; print(build_sdist("build/dist"))'
	$(call step,Wheel from the source distribution)
	@$(call watched,dist,$(VENV_PYTHON) -m pip wheel -v --disable-pip-version-check --no-deps \
	  -w build/dist build/dist/*.tar.gz)
	$(call step,The wheel alone)
	@$(VENV_PYTHON) -m venv build/dist/venv
	@build/dist/venv/bin/python -m pip install -q --disable-pip-version-check build/dist/*.whl
	@cd build/dist && venv/bin/python -W error -c \
	  'import peercore, peercore._core as core; print("peercore", peercore.__version__, core.build_info())'
	@rm -rf build/dist/venv && ls build/dist

clean:  ## remove build/
	rm -rf build
