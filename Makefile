# cdf_fdw: everything is done through make; `make` lists what there is.
#
# PG_CONFIG=/path/to/pg_config  the PostgreSQL to build for (default: the one on PATH, or the distribution's)
# DESTDIR=/staging/dir          where `make install` puts the files, for packagers

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PG_CONFIG ?=
DESTDIR ?=
export PG_CONFIG DESTDIR

target_dir := $(or $(CARGO_TARGET_DIR),target)
pg_config = $(shell source scripts/common.sh; find_pg_config)
shell_files = .ci/run $(wildcard scripts/*.sh demo/*.sh docker/*.sh)
python_dirs = tests demo bench scripts
# Runs a checker, if setup could get it.
check = if [[ -x $(target_dir)/venv/bin/$(1) ]]; then $(target_dir)/venv/bin/$(1) $(2); else echo '    without $(1)'; fi
# A test never waits for the outer world: it talks to the emulator on this machine.
pytest = CDF_EMULATOR=$(abspath $(target_dir))/release/cdf-emulator PG_CONFIG=$(pg_config) $(target_dir)/venv/bin/pytest

# Options of the benchmark: BENCH_ARGS='--quick --only copy-csv'.
BENCH_ARGS ?=
bench = CDF_SINK=$(abspath $(target_dir))/release/cdf-sink PG_CONFIG=$(pg_config) $(target_dir)/venv/bin/python bench/bench.py

.PHONY: help demo test test-clients fuzz bench lint install fmt clean build setup setup-build setup-programs

help: ## List the targets
	@echo 'make TARGET [PG_CONFIG=/path/to/pg_config]'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: setup-build ## Show a load of weather data, end to end, on this machine (KEEP=1: leave it running)
	@scripts/build.sh extension
	@scripts/build.sh emulator
	@scripts/build.sh gateway-api
	@scripts/install.sh
	@demo/demo.sh

test: setup ## Set up what is missing, build, install, and run every test
	@scripts/build.sh extension
	@scripts/build.sh emulator
	@scripts/build.sh gateway-api
	@scripts/build.sh encode
	@scripts/install.sh
	@scripts/test-units.sh
	@echo '==> The container image, without building it'
	@scripts/test-dockerfile.sh
	@echo '==> Tests through PostgreSQL, against the emulator'
	@$(pytest) tests --ignore=tests/programs

test-clients: setup-programs ## Run the programs that write to PostgreSQL, from psql to Prisma, against the emulator
	@scripts/build.sh extension
	@scripts/build.sh emulator
	@scripts/build.sh programs
	@scripts/install.sh
	@echo '==> Programs, against the emulator'
	@$(pytest) tests/programs

# Random input for each parser in `make fuzz`; `make test` takes 256.
FUZZ_CASES ?= 200000

fuzz: setup-build ## Random input for the parsers, for longer than in the tests (FUZZ_CASES=N)
	@PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --release --no-default-features --lib -- fuzz keeps_what_was_read of_any_message
	@PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --release -p cdf-gateway-api -- fuzz

bench: setup ## Measure loads against local tables and the Python SDK, and write docs/performance.md
	@scripts/build.sh extension
	@scripts/build.sh sink
	@scripts/install.sh
	@$(bench) $(BENCH_ARGS)

lint: setup ## Check formatting, clippy without warnings, structure, scripts, Python, and the Dockerfile
	@echo '==> rustfmt'
	@cargo fmt --all --check
	@scripts/majors.sh
	@echo '==> clippy: the CDF side alone, the emulator, the sink, the HTTP server and a program of the tests'
	@cargo clippy --locked --all-targets --no-default-features -p cdf_fdw -p cdf-emulator -p cdf-sink -p cdf-gateway-api -p cdf-copy-program -- -D warnings
	@echo '==> structure of src'
	@scripts/structure.py
	@echo '==> scripts, Python, Dockerfile'
	@$(call check,shellcheck,-x $(shell_files))
	@$(call check,ruff,check --quiet $(python_dirs))
	@$(call check,hadolint,Dockerfile)

install: ## Build in release mode and install into the PostgreSQL of PG_CONFIG
	@scripts/setup.sh check
	@scripts/build.sh extension
	@scripts/install.sh
	@echo '    In a database of that server:  CREATE EXTENSION cdf_fdw;'

build: setup-build ## Build the extension, the emulator and the HTTP server, install nothing
	@scripts/build.sh extension
	@scripts/build.sh emulator
	@scripts/build.sh gateway-api

fmt: ## Format the Rust code
	@echo '==> rustfmt'
	@cargo fmt --all

clean: ## Delete everything that was built
	@echo '==> deleting $(target_dir)'
	@cargo clean

setup:
	@scripts/setup.sh test

setup-build:
	@scripts/setup.sh build

setup-programs:
	@scripts/setup.sh programs
