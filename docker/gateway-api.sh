#!/usr/bin/env bash
# Runs cdf-gateway-api beside the server, over TLS with the server's own certificate, on port 8443 unless CDF_GATEWAY_LISTEN says
# otherwise. Its role has no password but the one made here at each start. It is started again when it ends.
set -euo pipefail

superuser=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$superuser}
as_server=()
[[ $(id -u) -ne 0 ]] || as_server=(gosu postgres)
administrator() { "${as_server[@]}" psql -X -q -v ON_ERROR_STOP=1 -U "$superuser" -d "$database" "$@"; }

# While the data directory is initialised, the server listens on its socket only.
until pg_isready -q -h 127.0.0.1 && administrator -c 'SELECT' >/dev/null 2>&1; do sleep 1; done

password=$(openssl rand -hex 24)
administrator -v password="$password" -v database="$database" <<'SQL'
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SELECT 'CREATE ROLE cdf_gateway_api LOGIN CREATEROLE'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cdf_gateway_api') \gexec
ALTER ROLE cdf_gateway_api PASSWORD :'password';
GRANT CREATE ON DATABASE :"database" TO cdf_gateway_api;
GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO cdf_gateway_api;
GRANT EXECUTE ON FUNCTION cdf_register_credentials TO cdf_gateway_api;
SELECT 'GRANT USAGE ON FOREIGN SERVER cdf TO cdf_gateway_api'
WHERE EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'cdf') \gexec
SQL

export CDF_GATEWAY_DATABASE="host=/var/run/postgresql user=cdf_gateway_api password=$password dbname='$database'"
export CDF_GATEWAY_LISTEN=${CDF_GATEWAY_LISTEN:-0.0.0.0:8443}
export CDF_GATEWAY_HOST=${CDF_GATEWAY_HOST:-${GATEWAY_HOSTNAME:-localhost}}
export CDF_GATEWAY_TLS_CERT=${CDF_GATEWAY_TLS_CERT:-$PGDATA/server.crt}
export CDF_GATEWAY_TLS_KEY=${CDF_GATEWAY_TLS_KEY:-$PGDATA/server.key}
while true; do
    "${as_server[@]}" cdf-gateway-api || echo "gateway-api.sh: cdf-gateway-api has ended; it is started again" >&2
    sleep 5
done
