#!/usr/bin/env bash
# Puts the packages of tests/programs/node under the build directory. Where there is no npm, or no registry, it says so and
# leaves nothing; the tests are skipped then.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

from=$root_dir/tests/programs/node
place=$target_dir/programs/node

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    note "no node and npm here: the programs for Node.js will be skipped"
    exit 0
fi
if cmp -s "$from/package.json" "$place/installed" && cmp -s "$from/schema.prisma" "$place/schema.prisma"; then
    exit 0
fi
note "packages of Node.js in $place"
rm -rf "$place"
mkdir -p "$place"
cp "$from/package.json" "$from/schema.prisma" "$place"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cd "$place"
if ! npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error >"$log" 2>&1; then
    rm -rf "$place"
    note "the packages of Node.js cannot be had here, their tests will be skipped: $(grep -v '^$' "$log" | head -n 1)"
    exit 0
fi
printf 'module.exports = { schema: "schema.prisma" };\n' >prisma.config.js
# Prisma wants to download an engine for changes of a schema, which nobody makes here. What stands in for it is never run.
if ! PRISMA_SCHEMA_ENGINE_BINARY=$(type -P true) CHECKPOINT_DISABLE=1 npx prisma generate >"$log" 2>&1; then
    note "Prisma's client cannot be made here, its tests will be skipped: $(grep -v '^$' "$log" | tail -n 1)"
    rm -rf node_modules/.prisma
fi
cp package.json installed
