#!/usr/bin/env bash
# Makes sure that everything the build and the tests need is there, and installs what is missing.
#
#   scripts/setup.sh build     compiler, libclang, a PostgreSQL with its server headers, Rust
#   scripts/setup.sh test      the same, valgrind, the Python environment of the tests, and Npgsql (the default)
#   scripts/setup.sh programs  the same, and the programs that `make test-clients` runs, of which each may be missing
#   scripts/setup.sh check     reports what `build` would install, and installs nothing
#
# Packages are installed with apt-get (Debian, Ubuntu), as root or through sudo, and only if something is missing.
# PG_CONFIG=/path/to/pg_config names the PostgreSQL to build for; otherwise it is the distribution's.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

rust_version=1.95

mode=${1:-test}
case $mode in build | test | check | programs) ;; *) die "usage: scripts/setup.sh [build|test|programs|check]" ;; esac
programs=$mode
[[ $mode != programs ]] || mode="test"

has_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        ldconfig -p 2>/dev/null | grep -q 'libclang.*\.so'
}

has_venv() {
    command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null
}

# The PostgreSQL major of the distribution: that of the newest one installed, else that of its `postgresql` package.
distribution_major() {
    local installed
    installed=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | grep -oE '[0-9]+' | sort -n | tail -n 1 || true)
    if [[ -n $installed ]]; then
        printf '%s\n' "$installed"
    else
        apt-cache depends postgresql 2>/dev/null | sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | head -n 1
    fi
}

# Sets `missing`, the packages to install.
find_missing() {
    local pg_config major
    missing=()
    command -v cc >/dev/null && command -v make >/dev/null || missing+=(build-essential)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    command -v curl >/dev/null || missing+=(curl)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v clang >/dev/null || missing+=(clang)
    has_libclang || missing+=(libclang-dev)
    has_venv || missing+=(python3-venv)
    [[ $mode != test ]] || command -v valgrind >/dev/null || missing+=(valgrind)

    pg_config=$(find_pg_config || true)
    if [[ -n ${PG_CONFIG:-} ]]; then
        [[ -n $pg_config ]] || die "PG_CONFIG=$PG_CONFIG is not an executable"
        major=$(pg_major "$pg_config")
    elif [[ -n $pg_config && -f $("$pg_config" --includedir-server)/postgres.h ]]; then
        major=$(pg_major "$pg_config")
    else
        major=$(distribution_major)
        [[ -n $major ]] || missing+=(postgresql)
        pg_config=${major:+/usr/lib/postgresql/$major/bin/pg_config}
    fi
    if [[ -n $major ]]; then
        [[ -x $pg_config && -f $("$pg_config" --includedir-server)/postgres.h ]] ||
            missing+=("postgresql-server-dev-$major")
        [[ -x $pg_config && -x $("$pg_config" --bindir)/initdb ]] || missing+=("postgresql-$major")
        [[ $mode != test ]] || find_missing_neighbours "$pg_config" "$major"
    fi
}

# Adds to `missing` the extensions beside which the tests run this one, where the distribution has them. Tests of those that
# cannot be had are skipped.
find_missing_neighbours() {
    local pg_config=$1 major=$2 neighbour library
    # Packages are for the distribution's PostgreSQL only.
    [[ $pg_config == /usr/bin/* || $pg_config == /usr/lib/postgresql/* ]] || return 0
    for neighbour in cron:pg_cron pgaudit:pgaudit; do
        library=/usr/lib/postgresql/$major/lib/${neighbour#*:}.so
        [[ -e $library ]] || ! apt-cache show "postgresql-$major-${neighbour%:*}" >/dev/null 2>&1 ||
            missing+=("postgresql-$major-${neighbour%:*}")
    done
}

install_missing() {
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} (names of Debian packages); there is no apt-get here, so please install them"
    note "installing: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
        >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "apt-get failed"
    }
}

check_rust() {
    local version
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        die "cargo is installed in ~/.cargo/bin but not on PATH: run  . \"\$HOME/.cargo/env\"  and try again"
    fi
    command -v cargo >/dev/null ||
        die "Rust is missing. Install it with rustup (https://rustup.rs), version $rust_version or newer, and try again"
    version=$(rustc --version | awk '{print $2}')
    [[ $(printf '%s\n' "$rust_version" "$version" | sort -V | head -n 1) == "$rust_version" ]] ||
        die "Rust $rust_version or newer is needed, this is $version. Run: rustup update stable"
}

# The tests' Python environment, made anew when requirements.txt changes.
make_venv() {
    local venv=$target_dir/venv wanted=$root_dir/tests/requirements.txt
    if [[ -x $venv/bin/pytest ]] && cmp -s "$wanted" "$venv/requirements.installed"; then
        return
    fi
    note "Python environment in $venv"
    mkdir -p "$target_dir"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/requirements.installed"
}

# The checkers of scripts, Python and the Dockerfile. One that cannot be had for this machine is left out.
get_checkers() {
    local venv=$target_dir/venv wanted=$root_dir/tests/requirements-lint.txt checker
    cmp -s "$wanted" "$venv/checkers.installed" && return
    while read -r checker; do
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$checker" >/dev/null 2>&1 ||
            note "$checker cannot be had here: make lint goes on without it"
    done <"$wanted"
    cp "$wanted" "$venv/checkers.installed"
}

say "Setting up"
find_missing
if [[ $mode == check ]]; then
    [[ ${#missing[@]} -eq 0 ]] ||
        die "missing packages: ${missing[*]}. scripts/setup.sh build  installs them (Debian, Ubuntu)"
    check_rust
    exit 0
fi

if [[ ${#missing[@]} -gt 0 ]]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    command -v apt-get >/dev/null && { as_root apt-get update -q >"$log" 2>&1 || note "apt-get update failed; going on"; }
    # With fresh package lists the distribution's PostgreSQL major is known.
    find_missing
    install_missing
    # The `postgresql` package brings the server; its headers have the major in their name.
    find_missing
    [[ ${#missing[@]} -eq 0 ]] || install_missing
fi
check_rust
if [[ $mode == test ]]; then
    make_venv
    get_checkers
    "$root_dir/scripts/npgsql.sh"
fi
if [[ $programs == programs ]]; then
    for script in "$root_dir"/scripts/programs-*.sh; do
        "$script"
    done
fi

pg_config=$(require_pg_config)
note "$("$pg_config" --version) ($pg_config), $(rustc --version | cut -d' ' -f1-2), $(python3 --version)"
