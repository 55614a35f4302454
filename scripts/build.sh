#!/usr/bin/env bash
# Builds in release mode, always in the same ways, so that nothing is compiled twice.
#
#   scripts/build.sh extension    target/release/libcdf_fdw.so, for the PostgreSQL of PG_CONFIG
#   scripts/build.sh emulator     target/release/cdf-emulator
#   scripts/build.sh gateway-api  target/release/cdf-gateway-api
#   scripts/build.sh sink         target/release/cdf-sink, for the benchmark
#   scripts/build.sh programs     target/release/cdf-copy-program, one of the programs of make test-clients
#   scripts/build.sh encode       target/release/examples/encode_path, of which a test counts the instructions
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$root_dir"

case ${1:-} in
extension)
    pg_config=$(require_pg_config)
    say "Building the extension for $("$pg_config" --version)"
    # Only the library that PostgreSQL loads: cargo optimises across crates (LTO) only what is built as nothing else.
    PGRX_PG_CONFIG_PATH=$pg_config \
        cargo rustc --locked --release --no-default-features --features "pg$(pg_major "$pg_config")" --lib \
        --crate-type cdylib
    ;;
emulator)
    say "Building the CDF emulator"
    cargo build --locked --release -p cdf-emulator
    ;;
gateway-api)
    say "Building the HTTP server"
    cargo build --locked --release -p cdf-gateway-api
    ;;
sink)
    say "Building the sink of the benchmark"
    cargo build --locked --release -p cdf-sink
    ;;
programs)
    say "Building the program that loads through tokio-postgres"
    cargo build --locked --release -p cdf-copy-program --bins --examples
    ;;
encode)
    say "Building the encode path without PostgreSQL"
    cargo build --locked --release --no-default-features --example encode_path
    ;;
*) die "usage: scripts/build.sh extension|emulator|gateway-api|sink|programs|encode" ;;
esac
