#!/usr/bin/env bash
# Tests what can be tested of the container image without a container engine: that the files it copies exist, and
# that docker/10-gateway.sh makes a cluster that accepts TLS with a password and nothing else.
# Needs the extension installed (make install), since the cluster preloads it.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$root_dir"

work=$(mktemp -d /tmp/cdf-docker.XXXXXX)
finish() {
    scripts/cluster.sh stop "$work/self" || true
    scripts/cluster.sh stop "$work/mounted" || true
    rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work"

sources=$(sed -nE 's/^COPY +(--[^ ]+ +)*(.*) +[^ ]+$/\1|\2/p' Dockerfile | grep -v -- '--from=' | cut -d'|' -f2)
[[ -n $sources ]] || die "no COPY in the Dockerfile?"
for source in $sources; do
    [[ -e $source ]] || die "Dockerfile copies $source, which does not exist"
done
note "every source of COPY exists"

# Runs docker/10-gateway.sh as the entrypoint of the official image does: by the server's user, while the server runs.
initialise() {
    local dir=$1 tls=$2 owner data
    scripts/cluster.sh start "$dir" >/dev/null
    owner=$(sed -n 's/^CLUSTER_OWNER=//p' "$dir/env")
    data=$(sed -n 's/^CLUSTER_DATA=//p' "$dir/env")
    # The script lies where the server's user can read it, as it does in the image.
    install -m 755 docker/10-gateway.sh "$work/10-gateway.sh"
    psql_local "$dir" -c "CREATE ROLE tester LOGIN PASSWORD 'tester-password'"
    local command=(env PGDATA="$data" GATEWAY_TLS_DIR="$tls" GATEWAY_HOSTNAME=gateway.test "$work/10-gateway.sh")
    if [[ $(id -u) -eq 0 ]]; then
        (cd / && runuser -u "$owner" -- "${command[@]}")
    else
        # pg_ident lets the operating system's users root and postgres in; here it is whoever runs this.
        "${command[@]}"
        printf 'container   %s   postgres\n' "$owner" >>"$data/pg_ident.conf"
    fi
    scripts/cluster.sh restart "$dir"
}

psql_local() {
    local dir=$1 port socket bindir
    shift
    port=$(sed -n 's/^PGPORT=//p' "$dir/env")
    socket=$(sed -n 's/^PGHOST=//p' "$dir/env")
    bindir=$(sed -n 's/^BINDIR=//p' "$dir/env")
    "$bindir/psql" -X -q -At -v ON_ERROR_STOP=1 -h "$socket" -p "$port" -U postgres -d postgres "$@"
}

psql_remote() {
    local dir=$1 options=$2 port bindir
    port=$(sed -n 's/^PGPORT=//p' "$dir/env")
    bindir=$(sed -n 's/^BINDIR=//p' "$dir/env")
    PGPASSWORD=tester-password "$bindir/psql" -X -q -At -w \
        "host=127.0.0.1 port=$port user=tester dbname=postgres $options" \
        -c 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()' 2>&1
}

initialise "$work/self" "$work/nothing-here"
[[ $(psql_local "$work/self" -c 'SHOW ssl') == on ]] || die "TLS is off"
[[ $(psql_local "$work/self" -c 'SHOW session_preload_libraries') == cdf_fdw ]] || die "cdf_fdw is not preloaded"
answer=$(psql_remote "$work/self" sslmode=require) && [[ $answer == t ]] || die "sslmode=require: $answer"
note "self-signed certificate: sslmode=require connects"
if answer=$(psql_remote "$work/self" sslmode=disable); then die "sslmode=disable was let in"; fi
[[ $answer == *"no encryption"* ]] || die "sslmode=disable failed for another reason: $answer"
note "sslmode=disable is refused: ${answer##*FATAL: }"
if answer=$(psql_remote "$work/self" "sslmode=require password=wrong"); then
    die "a wrong password was let in"
fi

mkdir "$work/tls"
openssl req -new -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext 'subjectAltName=IP:127.0.0.1' \
    -keyout "$work/tls/server.key" -out "$work/tls/server.crt" 2>/dev/null
chmod 644 "$work/tls/"*
initialise "$work/mounted" "$work/tls"
answer=$(psql_remote "$work/mounted" "sslmode=verify-full sslrootcert=$work/tls/server.crt") && [[ $answer == t ]] ||
    die "mounted certificate, sslmode=verify-full: $answer"
note "mounted certificate: sslmode=verify-full connects"
