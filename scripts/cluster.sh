#!/usr/bin/env bash
# A throw-away PostgreSQL cluster for tests and the demo.
#
#   scripts/cluster.sh start DIR [name=value ...]    creates and starts it; name=value are postgresql.conf settings
#   scripts/cluster.sh stop DIR                      stops it, if it runs; DIR stays, delete it yourself
#   scripts/cluster.sh restart DIR                   e.g. after a change of its configuration
#
# DIR/env says how to reach it (PGPORT, PGHOST: the socket directory, BINDIR, and more), DIR/log is the server's log,
# DIR/data its data. The superuser is `postgres`, without a password on the unix socket, which only the cluster's owner
# and root can enter. On TCP (127.0.0.1) every role needs its password (scram-sha-256).
#
# PostgreSQL does not run as root: as root, the cluster belongs to the operating system's user `postgres`, else `nobody`
# (CLUSTER_OWNER=name: another one), and DIR must be reachable for that user: make it under /tmp, for example.
# Durability is off (fsync=off): nothing in it survives a crash of the machine.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

action=${1:-}
dir=${2:-}
[[ -n $dir ]] || die "usage: scripts/cluster.sh start|stop|restart DIR [name=value ...]"
shift 2
# Nothing of the caller's own PostgreSQL environment may leak into the cluster.
unset PGDATA PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGOPTIONS PGSSLMODE PGTZ

owner=$(id -un)
if [[ $(id -u) -eq 0 ]]; then
    owner=${CLUSTER_OWNER:-}
    if [[ -z $owner ]]; then
        if id postgres >/dev/null 2>&1; then owner=postgres; else owner=nobody; fi
    fi
fi

as_owner() {
    if [[ $(id -u) -eq 0 ]]; then
        runuser -u "$owner" -- "$@"
    else
        "$@"
    fi
}

pg_ctl() {
    as_owner "$bindir/pg_ctl" -D "$dir/data" "$@"
}

is_running() {
    pg_ctl status >/dev/null 2>&1
}

# The value as postgresql.conf wants it.
quoted() {
    printf "'%s'" "${1//\'/\'\'}"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

create() {
    local initdb_log=$dir/initdb.log
    as_owner "$bindir/initdb" -D "$dir/data" -U postgres -A trust --no-sync --encoding=UTF8 --locale=C \
        >"$initdb_log" 2>&1 || {
        cat "$initdb_log" >&2
        die "initdb failed"
    }
    {
        printf '\n# Written by scripts/cluster.sh\n'
        printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = $(quoted "$socket_dir")" \
            "password_encryption = 'scram-sha-256'" "fsync = off" "synchronous_commit = off" \
            "full_page_writes = off" "log_line_prefix = '%m [%p] %u@%d %e '"
        for setting in "$@"; do
            [[ $setting == *=* ]] || die "not a setting (name=value): $setting"
            printf '%s = %s\n' "${setting%%=*}" "$(quoted "${setting#*=}")"
        done
    } | as_owner tee -a "$dir/data/postgresql.conf" >/dev/null
    as_owner tee "$dir/data/pg_hba.conf" >/dev/null <<'HBA'
# type  database  user      address         method
local   all       postgres                  trust
local   all       all                       scram-sha-256
host    all       all       127.0.0.1/32    scram-sha-256
HBA
}

# Another process may take the port between our choice and the start, so a few ports are tried.
start_on_free_port() {
    local attempt
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        if pg_ctl -l "$dir/log" -o "-p $port" -w -t 60 start >/dev/null 2>&1; then
            return
        fi
        grep -q 'Address already in use' "$dir/log" 2>/dev/null || break
        note "port $port was taken meanwhile (attempt $attempt)"
    done
    tail -n 20 "$dir/log" >&2 || true
    die "the server did not start; its log is $dir/log"
}

start() {
    local pg_config
    pg_config=$(require_pg_config)
    bindir=$("$pg_config" --bindir)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    [[ $(id -u) -ne 0 ]] || chown "$owner" "$dir"
    # The server's programs warn when they cannot return to the directory that they were started in.
    cd /
    as_owner test -w "$dir" || die "user $owner cannot reach $dir: choose a directory under /tmp"
    if is_running; then
        note "already running: $dir"
        return
    fi
    # A socket's path has room for 107 bytes, so a long DIR gets a short place for it.
    socket_dir=$dir/run
    if [[ ${#socket_dir} -gt 85 ]]; then
        socket_dir=$(as_owner mktemp -d /tmp/cluster.XXXXXX)
    fi
    as_owner mkdir -p "$socket_dir"
    as_owner chmod 700 "$socket_dir"
    [[ -d $dir/data ]] || create "$@"
    start_on_free_port
    cat >"$dir/env" <<ENV
PGPORT=$port
PGHOST=$socket_dir
PGUSER=postgres
PGDATABASE=postgres
BINDIR=$bindir
CLUSTER_DATA=$dir/data
CLUSTER_LOG=$dir/log
CLUSTER_OWNER=$owner
ENV
    note "$("$bindir/postgres" --version | cut -d' ' -f1,3) on 127.0.0.1:$port, log in $dir/log"
}

# Everything needed to stop or restart it comes from DIR/env, also when PG_CONFIG has changed since.
read_env() {
    dir=$(cd "$dir" && pwd)
    bindir=$(sed -n 's/^BINDIR=//p' "$dir/env")
    owner=$(sed -n 's/^CLUSTER_OWNER=//p' "$dir/env")
    socket_dir=$(sed -n 's/^PGHOST=//p' "$dir/env")
    cd /
}

stop() {
    [[ -f $dir/env ]] || return 0
    read_env
    if is_running; then
        pg_ctl -m fast -w -t 30 stop >/dev/null 2>&1 || pg_ctl -m immediate -w stop >/dev/null
    fi
    [[ $socket_dir == "$dir/run" ]] || rm -rf "$socket_dir"
}

restart() {
    [[ -f $dir/env ]] || die "no cluster in $dir"
    read_env
    # pg_ctl takes the port over from the running server's command line.
    pg_ctl -l "$dir/log" -m fast -w restart >/dev/null || {
        tail -n 20 "$dir/log" >&2
        die "the server did not start again; its log is $dir/log"
    }
}

case $action in
start) start "$@" ;;
stop) stop ;;
restart) restart ;;
*) die "usage: scripts/cluster.sh start|stop|restart DIR [name=value ...]" ;;
esac
