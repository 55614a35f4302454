#!/usr/bin/env bash
# The demo, called by `make demo` once everything is built and installed: a PostgreSQL and a CDF emulator of their own on
# this machine, credentials registered, four years of weather loaded through psql, what arrived, a ROLLBACK, a refusal.
# KEEP=1 leaves both running until Ctrl-C.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/../scripts/common.sh"
cd "$root_dir"

dir=$(mktemp -d /tmp/cdf-demo.XXXXXX)
chmod 755 "$dir"
emulator_pid=
api_pid=
finish() {
    [[ -z $api_pid ]] || kill "$api_pid" 2>/dev/null || true
    scripts/cluster.sh stop "$dir/pg" || true
    [[ -z $emulator_pid ]] || kill "$emulator_pid" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "== $*"; }
[[ -t 1 ]] || step() { printf '\n%s\n' "== $*"; }

step "A CDF on this machine: the emulator"
"$target_dir/release/cdf-emulator" --listen 127.0.0.1:0 --port-file "$dir/port" >"$dir/emulator.log" 2>&1 &
emulator_pid=$!
for _ in {1..100}; do
    [[ ! -s $dir/port ]] || break
    kill -0 "$emulator_pid" 2>/dev/null || break
    sleep 0.05
done
[[ -s $dir/port ]] || { cat "$dir/emulator.log" >&2; die "the emulator did not start"; }
url=http://127.0.0.1:$(<"$dir/port")
echo "$url, project test-project, empty"

step "A PostgreSQL of its own"
# With pg_cron, where this PostgreSQL has it: its jobs run in background workers, which load only what the postmaster has.
cron=()
if [[ -e $("$(find_pg_config)" --pkglibdir)/pg_cron.so ]]; then
    cron=("shared_preload_libraries=cdf_fdw,pg_cron" cron.database_name=gateway cron.use_background_workers=on)
fi
scripts/cluster.sh start "$dir/pg" session_preload_libraries=cdf_fdw "${cron[@]}"
bindir=$(sed -n 's/^BINDIR=//p' "$dir/pg/env")
port=$(sed -n 's/^PGPORT=//p' "$dir/pg/env")
socket=$(sed -n 's/^PGHOST=//p' "$dir/pg/env")
unset PGSERVICE PGOPTIONS PGPASSFILE PGTZ PGSSLMODE PGHOSTADDR
export PGCLIENTENCODING=UTF8
administrator() { "$bindir/psql" -X -v ON_ERROR_STOP=1 -h "$socket" -p "$port" -U postgres -d postgres "$@"; }
administrator -q -c 'CREATE DATABASE gateway'
administrator() { "$bindir/psql" -X -v ON_ERROR_STOP=1 -h "$socket" -p "$port" -U postgres -d gateway "$@"; }

step "The administrator: extension, credentials, a table"
echo 'CREATE EXTENSION cdf_fdw;'
administrator -q -c 'CREATE EXTENSION cdf_fdw'
sed -e "s|:'token_url'|'$url/oauth2/v2.0/token'|" -e "s|:'client_id'|'test-client'|" -e "s|:'client_secret'|'********'|" \
    -e "s|:'scope'|'$url/.default'|" -e "s|:'project'|'test-project'|" demo/register.sql
# psql sends the real secret; only what is shown above is masked.
IFS='|' read -r username password database schema < <(
    administrator -q -At -v token_url="$url/oauth2/v2.0/token" -v client_id=test-client -v client_secret=test-secret \
        -v scope="$url/.default" -v project=test-project -f demo/register.sql
)
[[ -n ${password:-} ]] || die "no password came back"
printf '  %s = %s\n' username "$username" password '******** (shown once; this script keeps it)' \
    database "$database" schema "$schema"
echo
sed -e "s|:\"schema\"|$schema|; s|:\"username\"|$username|" demo/raw-table.sql
administrator -q -v schema="$schema" -v username="$username" -f demo/raw-table.sql

# From here on: what any tool can do that is given a host, a port, a database, a user name and a password.
loader() {
    PGPASSWORD=$password "$bindir/psql" -X -h 127.0.0.1 -p "$port" -U "$username" -d "$database" "$@"
}

step "The load: psql over TCP, as $username"
loader -a -v ON_ERROR_STOP=1 -f demo/load.sql

step "What CDF has received, as the emulator itself counts it"
python3 demo/summary.py "$url" arrived

step "The same through SELECT"
loader -a -v ON_ERROR_STOP=1 -f demo/read-back.sql

step "ROLLBACK"
before=$(python3 demo/summary.py "$url" writes)
loader -a -v ON_ERROR_STOP=1 -f demo/rollback.sql
after=$(python3 demo/summary.py "$url" writes)
echo "Requests that write, as CDF has counted them: $before before the transaction, $after after it."

step "Refused"
loader -a -f demo/refused.sql

step "A pipeline in SQL alone: postgres_fdw, a watermark, pg_cron"
if [[ $(administrator -q -At -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'") == 0 ]]; then
    echo "Left out: this PostgreSQL has no postgres_fdw (Debian: package postgresql-contrib)."
else
    administrator -q -c 'CREATE DATABASE historian' -c "CREATE ROLE reader LOGIN PASSWORD 'reads'"
    historian() { "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h "$socket" -p "$port" -U postgres -d historian "$@"; }
    historian -c 'CREATE TABLE readings (tag text, at timestamptz, value float8, changed timestamptz DEFAULT now())' \
        -c 'GRANT SELECT ON readings TO reader' \
        -c "INSERT INTO readings SELECT 'kettle-' || n % 2 + 1, '2026-01-01Z'::timestamptz + n * interval '1 minute', 60 + n % 30
            FROM generate_series(1, 1000) n"
    sed "s/:\"username\"/$username/; s/:'port'/'$port'/" demo/pipeline-source.sql
    administrator -q -v port="$port" -v username="$username" -f demo/pipeline-source.sql
    loader -a -v ON_ERROR_STOP=1 -f demo/pipeline-load.sql
    if [[ ${#cron[@]} -eq 0 ]]; then
        echo "Not scheduled: this PostgreSQL has no pg_cron (Debian: package postgresql-15-cron)."
    else
        administrator -q -c 'CREATE EXTENSION pg_cron' -c "GRANT USAGE ON SCHEMA cron TO \"$username\""
        loader -a -q -At -c "SELECT cron.schedule('load-readings', '* * * * *', 'SELECT pipeline.load_readings()')"
        historian -c "INSERT INTO readings VALUES ('kettle-1', '2026-01-02Z', 75)"
        echo "pg_cron runs it at the next full minute …"
        for _ in {1..130}; do
            runs=$(loader -q -At -c "SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'")
            [[ $runs == 0 ]] || break
            sleep 0.5
        done
        loader -q -c "SELECT cron.unschedule('load-readings')" >/dev/null
    fi
    loader -a -c "SELECT status, message FROM extraction_pipeline_runs WHERE external_id = 'brewery-readings' ORDER BY created_time"
fi

step "Registration over HTTP, by curl"
administrator -q <<'SQL'
CREATE ROLE gateway_api LOGIN CREATEROLE PASSWORD 'demo';
GRANT CREATE ON DATABASE gateway TO gateway_api;
GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO gateway_api;
GRANT USAGE ON FOREIGN SERVER cdf TO gateway_api;
GRANT EXECUTE ON FUNCTION cdf_register_credentials TO gateway_api;
SQL
CDF_GATEWAY_DATABASE=postgresql://gateway_api:demo@127.0.0.1:$port/gateway \
    "$target_dir/release/cdf-gateway-api" --listen 127.0.0.1:0 --port-file "$dir/api-port" --cdf-url "$url" 2>"$dir/api.log" &
api_pid=$!
for _ in {1..100}; do
    [[ ! -s $dir/api-port ]] || break
    kill -0 "$api_pid" 2>/dev/null || break
    sleep 0.05
done
[[ -s $dir/api-port ]] || { cat "$dir/api.log" >&2; die "cdf-gateway-api did not start"; }
api=http://127.0.0.1:$(<"$dir/api-port")
credentials="client_id=test-client&client_secret=test-secret"
token=$(curl --noproxy '*' -fsS -d "grant_type=client_credentials&$credentials&scope=$url/.default" "$url/oauth2/v2.0/token" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
echo "curl -H 'Authorization: Bearer …' -d '{\"auth\": {…}, \"project\": \"test-project\"}' $api/create"
curl --noproxy '*' -fsS -H "Authorization: Bearer $token" "$api/create" -d @- <<JSON | sed -E 's/("password":")[^"]*/\1********/'
{"auth": {"token_url": "$url/oauth2/v2.0/token", "client_id": "test-client", "client_secret": "test-secret",
 "scope": "$url/.default"}, "project": "test-project"}
JSON
echo

step "Try it yourself"
if [[ -n ${KEEP:-} ]]; then
    echo "Until Ctrl-C, in another terminal:"
    echo
    echo "  PGPASSWORD='$password' $bindir/psql -h 127.0.0.1 -p $port -U $username $database"
    echo
    echo "The emulator: $url (what it holds: curl '$url/admin/stats')"
    echo "The server's log: $dir/pg/log"
    while kill -0 "$emulator_pid" 2>/dev/null; do sleep 1; done
else
    echo "KEEP=1 make demo  leaves the server and the emulator running and prints how to connect."
    echo "With your own PostgreSQL and a real CDF project: README.md, «First load»."
fi
