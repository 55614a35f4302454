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
# A test program is not loaded by a server, so PostgreSQL's own functions are missing in it. The linker may leave them open,
# as long as no test calls one.
pg_config=$(require_pg_config)
program=$(
    PGRX_PG_CONFIG_PATH=$pg_config cargo rustc --locked --lib --profile test --message-format json-render-diagnostics \
        --no-default-features --features "pg$(pg_major "$pg_config")" -- \
        -C link-arg=-Wl,--unresolved-symbols=ignore-all -C link-arg=-Wl,-z,lazy |
        python3 -c '
import json, sys
units = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print(next(unit["executable"] for unit in units if unit.get("executable")))'
)
# Its variables cannot be left open: a library of empty ones stands in for the server.
stand_in=$(mktemp -d)
trap 'rm -rf "$stand_in"' EXIT
nm -D --undefined-only "$program" | awk '$1 == "U" && $2 !~ /@/ {print "char " $2 "[64];"}' >"$stand_in/server.c"
cc -w -shared -fPIC -fno-builtin -o "$stand_in/server.so" "$stand_in/server.c"
LD_PRELOAD="$stand_in/server.so" "$program" pg::
