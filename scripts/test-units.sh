#!/usr/bin/env bash
# The unit tests: of the CDF side without any PostgreSQL, of the emulator, of the benchmark's sink, of the HTTP server, and of those parts of
# src/pg that call no function of PostgreSQL.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$root_dir"

say "Unit tests of the CDF side (no PostgreSQL), of the sink and of the HTTP server"
cargo test --locked --no-default-features --lib --bins -p cdf_fdw -p cdf-sink -p cdf-gateway-api
# Apart, since the emulator has serde_json keep the digits of numbers, which changes how numbers are read: in one build with the
# others they would be tested with it.
say "Unit tests of the emulator"
cargo test --locked --bins -p cdf-emulator

say "Unit tests of the PostgreSQL side"
# A test program is not loaded by a server, so PostgreSQL's own functions are missing in it. A test that reaches one does not
# link; what it tests belongs into a function that needs none, or into tests/client.
pg_config=$(require_pg_config)
PGRX_PG_CONFIG_PATH=$pg_config cargo test --locked --lib --no-default-features \
    --features "pg$(pg_major "$pg_config")" -- pg::
