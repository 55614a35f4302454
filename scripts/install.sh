#!/usr/bin/env bash
# Copies the built extension into the PostgreSQL of PG_CONFIG (under DESTDIR, if that is set). Uses sudo only if the
# directories are not writable.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$root_dir"

pg_config=$(require_pg_config)
library_dir=${DESTDIR:-}$("$pg_config" --pkglibdir)
extension_dir=${DESTDIR:-}$("$pg_config" --sharedir)/extension
library=$target_dir/release/libcdf_fdw.so
[[ -f $library ]] || die "$library is missing: run  make install"

say "Installing into $("$pg_config" --version)"
run=()
for dir in "$library_dir" "$extension_dir"; do
    existing=$dir
    while [[ ! -e $existing ]]; do existing=$(dirname "$existing"); done
    [[ -w $existing ]] || run=(as_root)
done
"${run[@]}" install -d "$library_dir" "$extension_dir"
# `install` puts a new file in place of the old one: a running server keeps the library that it has loaded.
"${run[@]}" install -m 755 "$library" "$library_dir/cdf_fdw.so"
"${run[@]}" install -m 644 cdf_fdw.control sql/cdf_fdw--*.sql "$extension_dir/"
note "$library_dir/cdf_fdw.so"
for file in cdf_fdw.control sql/cdf_fdw--*.sql; do note "$extension_dir/$(basename "$file")"; done
