#!/usr/bin/env bash
# Runs once, when the container initialises an empty data directory: TLS on, and no way in from outside without it.
#
# Certificate: /tls/server.crt and /tls/server.key if they are mounted, else a self-signed one made here. Both are
# copied into the data directory, because PostgreSQL wants the key to be its own and readable by nobody else.
# GATEWAY_HOSTNAME is the name in the self-signed certificate (default: the container's).
set -euo pipefail

tls_dir=${GATEWAY_TLS_DIR:-/tls}
superuser=${POSTGRES_USER:-postgres}
hostname=${GATEWAY_HOSTNAME:-$(hostname)}

umask 077
if [[ -f $tls_dir/server.crt && -f $tls_dir/server.key ]]; then
    cp "$tls_dir/server.crt" "$tls_dir/server.key" "$PGDATA/"
    chmod 600 "$PGDATA/server.crt" "$PGDATA/server.key"
    echo "10-gateway.sh: TLS with the certificate in $tls_dir"
else
    openssl req -new -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=$hostname" \
        -addext "subjectAltName=DNS:$hostname" \
        -keyout "$PGDATA/server.key" -out "$PGDATA/server.crt" 2>/dev/null
    echo "10-gateway.sh: TLS with a self-signed certificate for $hostname"
fi

cat >>"$PGDATA/postgresql.conf" <<CONF

# Written by 10-gateway.sh
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
session_preload_libraries = 'cdf_fdw'
CONF

# Inside the container, root and the server's own user may become the superuser: docker exec … psql. Everybody else, and
# everybody from outside, needs a password; from outside, TLS too.
cat >"$PGDATA/pg_hba.conf" <<HBA
# type   database  user          address  method
local    all       "$superuser"           peer map=container
local    all       all                    scram-sha-256
hostssl  all       all           all      scram-sha-256
HBA
cat >"$PGDATA/pg_ident.conf" <<IDENT
# map       system user  role
container   root         "$superuser"
container   postgres     "$superuser"
IDENT
