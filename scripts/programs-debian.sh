#!/usr/bin/env bash
# Gets the programs of the distribution that tests/programs runs (Debian, Ubuntu), with apt-get. What cannot be had is left out
# with a line that says so; its tests are skipped then.
#
# Servers are not installed, since a package would start them: rsyslog and PgBouncer are unpacked under the build directory, with
# the libraries that they take.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

place=$target_dir/programs/debian
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! command -v apt-get >/dev/null; then
    note "no apt-get here: programs of the distribution that are not installed already will be skipped"
    exit 0
fi

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# Once, and only if something is to be got.
update_lists() {
    [[ ${package_lists:-old} == old ]] || return 0
    as_root apt-get update -q >"$log" 2>&1 || note "apt-get update failed; going on"
    package_lists=new
}

can_be_had() {
    apt-cache show "$1" >/dev/null 2>&1
}

# Each line: packages, then what the tests run with them.
programs=(
    "default-jdk-headless libpostgresql-jdbc-java libhikaricp-java libslf4j-java libgoogle-gson-java : pgjdbc and HikariCP"
    "golang-go golang-github-lib-pq-dev golang-github-jackc-pgx-v4-dev : lib/pq and pgx"
    "libdbd-pg-perl : DBD::Pg"
    "r-cran-rpostgresql r-cran-jsonlite : RPostgreSQL"
    "ruby-pg : Ruby's pg"
    "pgloader : pgloader"
    "gdal-bin : ogr2ogr"
)
wanted=()
for line in "${programs[@]}"; do
    read -ra packages <<<"${line% : *}"
    lacking=()
    for package in "${packages[@]}"; do
        installed "$package" || lacking+=("$package")
    done
    [[ ${#lacking[@]} -gt 0 ]] || continue
    update_lists
    for package in "${lacking[@]}"; do
        if ! can_be_had "$package"; then
            note "$package cannot be had here, the tests of ${line#* : } will be skipped"
            continue 2
        fi
    done
    wanted+=("${lacking[@]}")
done
if [[ ${#wanted[@]} -gt 0 ]]; then
    note "installing: ${wanted[*]}"
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${wanted[@]}" >"$log" 2>&1; then
        note "apt-get failed, the tests of what is missing will be skipped: $(grep -E '^E:' "$log" | head -n 1)"
    fi
fi

# unpack NAME PACKAGE…: NAME is the program, the packages are its own and its libraries'.
unpack() {
    local name=$1 work
    shift
    [[ -e $place/$name/unpacked ]] && return
    note "unpacking $name in $place/$name"
    rm -rf "${place:?}/$name"
    mkdir -p "$place/$name"
    work=$(mktemp -d)
    # As its own user apt-get cannot write there, which is no more than a warning to root.
    if (cd "$work" && apt-get download -q "$@") >"$log" 2>&1; then
        for package in "$work"/*.deb; do
            dpkg-deb -x "$package" "$place/$name"
        done
        # Its version, without the epoch and Debian's own revision.
        apt-cache show "$1" | sed -nE 's/^Version: ([0-9]+:)?([^-+]*).*/\2/p' | head -n 1 >"$place/$name/unpacked"
    else
        note "$name cannot be had here, its tests will be skipped: $(grep -E '^E:' "$log" | head -n 1)"
    fi
    rm -rf "$work"
}

# The libraries by what they are called in any release: their packages have versions in their names.
libraries() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$1" 2>/dev/null |
        grep -E "^($2)" | sort -u
}

[[ -e $place/rsyslog/unpacked && -e $place/pgbouncer/unpacked ]] || update_lists
mapfile -t syslog_libraries < <(libraries rsyslog-pgsql 'libestr|libfastjson|liblognorm|libpq5')
mapfile -t bouncer_libraries < <(libraries pgbouncer 'libevent-2|libc-ares')
unpack rsyslog rsyslog rsyslog-pgsql "${syslog_libraries[@]}"
unpack pgbouncer pgbouncer "${bouncer_libraries[@]}"
