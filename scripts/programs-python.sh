#!/usr/bin/env bash
# Gets the Python programs that tests/programs runs, under the build directory:
#
#   programs/python             what tests/requirements-programs.txt names
#   programs/target-postgres    Meltano's target, whose packages do not go with the others
#
# and, with apt-get where it is there, the drivers that some of them take (psqlODBC, pgjdbc). What cannot be had is left out
# with a line that says so; its tests are skipped then.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

place=$target_dir/programs
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# An environment with the packages of a file: all of them at once, or else one by one what can be had.
make_environment() {
    local wanted=$root_dir/tests/requirements-$2.txt venv=$place/$1 package
    cmp -s "$wanted" "$venv/requirements.installed" && return
    note "Python programs in $venv"
    mkdir -p "$place"
    python3 -m venv --clear "$venv"
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" >"$log" 2>&1; then
        while read -r package; do
            "$venv/bin/pip" install --quiet --disable-pip-version-check "$package" >"$log" 2>&1 ||
                note "$package cannot be had here, its tests will be skipped: $(grep -v '^$' "$log" | tail -n 1)"
        done < <(grep -vE '^(#|$)' "$wanted")
    fi
    cp "$wanted" "$venv/requirements.installed"
}

# A driver of the distribution.
get_package() {
    local package=$1 file=$2
    compgen -G "$file" >/dev/null && return
    if ! command -v apt-get >/dev/null ||
        ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package" >"$log" 2>&1; then
        note "$package cannot be had here, the tests that need it will be skipped"
    fi
}

get_package odbc-postgresql '/usr/lib/*/odbc/psqlodbcw.so'
get_package libpostgresql-jdbc-java /usr/share/java/postgresql.jar
make_environment python programs
make_environment target-postgres target-postgres
# sling's own package gets its program from the network at first use; this one carries it.
for program in "$place"/python/lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64; do
    [[ ! -e $program ]] || ln -sfn "$(realpath "$program")" "$place/python/bin/sling"
done
