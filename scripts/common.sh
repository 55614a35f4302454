# Shared by the other scripts: sourced, not run.
# shellcheck shell=bash

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where cargo builds, and where the Python environment of the tests lives.
target_dir=${CARGO_TARGET_DIR:-$root_dir/target}
export root_dir target_dir

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Prints the path of the pg_config to build against: $PG_CONFIG when it is set, else the one on PATH, else the newest
# one under /usr/lib/postgresql. Fails when there is none.
find_pg_config() {
    local candidate
    if [[ -n ${PG_CONFIG:-} ]]; then
        candidate=$(command -v "$PG_CONFIG") || return
        # Another path to the PostgreSQL on PATH would have everything built once more.
        if [[ $(pg_config 2>/dev/null) == "$("$candidate")" ]]; then
            candidate=$(command -v pg_config)
        fi
        printf '%s\n' "$candidate"
        return
    fi
    if command -v pg_config; then
        return
    fi
    candidate=$(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -V | tail -n 1)
    [[ -x $candidate ]] && printf '%s\n' "$candidate"
}

# The same, but without a pg_config it prints a message and ends the script.
require_pg_config() {
    find_pg_config || die "no pg_config found${PG_CONFIG:+ at $PG_CONFIG}: install PostgreSQL and its server headers (scripts/setup.sh does, on Debian and Ubuntu), or name one with PG_CONFIG=/path/to/pg_config"
}

# The major version behind a pg_config: 15 for «PostgreSQL 15.8».
pg_major() {
    "$1" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
}

# Runs a command with root's rights: directly as root, else through sudo.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}
