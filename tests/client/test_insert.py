"""INSERT in its forms: whatever PostgreSQL takes for an ordinary table arrives in CDF, under the right credentials."""

from __future__ import annotations

from datetime import datetime, timezone

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from support import Api, columns, dump, millis, names, paths, points, refused, requests, stored, told

EVENT = "INSERT INTO events (external_id, type) VALUES (%s, %s)"
DAY = datetime(2024, 1, 31, 12, 0, 0, 123456, timezone.utc)


# ---- rows ----


def test_one_row(session, cdf):
    cursor = session.execute(EVENT, ("one", "alarm"))
    assert cursor.statusmessage == "INSERT 0 1"
    assert stored(cdf, "events", "one")["type"] == "alarm"


def test_several_rows_of_one_statement_share_a_request(session, cdf):
    cursor = session.execute("INSERT INTO events (external_id) VALUES ('a'), ('b'), ('c')")
    assert cursor.statusmessage == "INSERT 0 3"
    assert names(cdf, "events") == ["a", "b", "c"]
    assert paths(cdf) == ["/events"]


def test_no_rows_make_no_request(session, cdf):
    assert session.execute("INSERT INTO events (external_id) SELECT 'x' WHERE false").statusmessage == "INSERT 0 0"
    assert requests(cdf) == []


def test_all_columns_of_an_asset(session, cdf):
    api = Api(cdf)
    [data_set] = api.create("datasets", "plant")
    api.create("labels", "pump", "critical")
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [10.5, 59.9]}, "properties": {}}
    [parent] = api.create("assets", "root")
    session.execute(
        "INSERT INTO assets (external_id, name, parent_id, description, metadata, source, data_set_id, labels,"
        " geo_location) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            "p-7",
            "Pump 7",
            parent,
            "a pump",
            Jsonb({"kW": "7.5"}),
            "SAP",
            data_set,
            ["pump", "critical"],
            Jsonb(feature),
        ),
    )
    asset = stored(cdf, "assets", "p-7")
    assert asset["name"] == "Pump 7"
    assert asset["parentId"] == asset["rootId"] == parent
    assert asset["description"] == "a pump"
    assert asset["metadata"] == {"kW": "7.5"}
    assert asset["source"] == "SAP"
    assert asset["dataSetId"] == data_set
    assert [label["externalId"] for label in asset["labels"]] == ["pump", "critical"]
    assert asset["geoLocation"] == feature


def test_all_columns_of_an_event(session, cdf):
    api = Api(cdf)
    [data_set] = api.create("datasets", "plant")
    assets = api.create("assets", "a", "b")
    session.execute(
        "INSERT INTO events (external_id, start_time, end_time, type, subtype, description, metadata, asset_ids,"
        " source, data_set_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        ("e", DAY, "2024-02-01 00:00:00+02", "alarm", "high", "text", Jsonb({"n": 1}), assets, "DCS", data_set),
    )
    event = stored(cdf, "events", "e")
    for made in ("id", "createdTime", "lastUpdatedTime"):
        del event[made]
    assert event == {
        "externalId": "e",
        "startTime": millis("2024-01-31T12:00:00.123"),
        "endTime": millis("2024-01-31T22:00:00"),
        "type": "alarm",
        "subtype": "high",
        "description": "text",
        "metadata": {"n": "1"},
        "assetIds": assets,
        "source": "DCS",
        "dataSetId": data_set,
    }


def test_all_columns_of_a_time_series(session, cdf):
    api = Api(cdf)
    [data_set] = api.create("datasets", "plant")
    [asset] = api.create("assets", "a")
    session.execute(
        "INSERT INTO timeseries (external_id, name, is_string, is_step, unit, unit_external_id, description, metadata,"
        " asset_id, security_categories, data_set_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        ("s", "S", False, True, "bar", "pressure:bar", "text", Jsonb({"k": "v"}), asset, [12, 13], data_set),
    )
    item = stored(cdf, "timeseries", "s")
    wanted = {
        "name": "S",
        "isString": False,
        "isStep": True,
        "unit": "bar",
        "unitExternalId": "pressure:bar",
        "description": "text",
        "metadata": {"k": "v"},
        "assetId": asset,
        "securityCategories": [12, 13],
        "dataSetId": data_set,
    }
    assert {key: item[key] for key in wanted} == wanted


def test_all_columns_of_a_point(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('s')")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value, status_code, status_symbol)"
        " VALUES ('s', %s, 1.5, 1073741824, 'Uncertain')",
        (DAY,),
    )
    assert points(cdf, "s") == [(millis("2024-01-31T12:00:00.123"), 1.5, 1073741824)]


def test_a_row_of_defaults(session, cdf):
    session.execute("INSERT INTO events DEFAULT VALUES")
    assert len(dump(cdf, "events")) == 1


def test_text_of_any_kind_arrives_as_it_is(session, cdf):
    text = 'quote " backslash \\ newline \n tab \t nul-like \u0001 emoji 🛢 umlaut ü \u2028 </script>'
    session.execute(EVENT + ", (%s, %s)", (text, "x", "plain", "æøå 中文"))
    assert names(cdf, "events") == sorted([text, "plain"])
    assert stored(cdf, "events", "plain")["type"] == "æøå 中文"


def test_explain_sends_nothing_unless_it_runs_the_statement(session, cdf):
    session.execute("EXPLAIN (VERBOSE) INSERT INTO events (external_id) VALUES ('a')")
    assert requests(cdf) == []
    session.execute("EXPLAIN (ANALYZE) INSERT INTO events (external_id) VALUES ('b')")
    assert names(cdf, "events") == ["b"]


# ---- prepared statements ----


@pytest.mark.parametrize("mode", ["auto", "force_custom_plan", "force_generic_plan"])
def test_prepared_and_executed_often(session, cdf, mode):
    session.execute(f"SET plan_cache_mode = {mode}")
    for at in range(15):
        session.execute(EVENT, (f"e{at:02}", f"t{at}"), prepare=True)
    assert names(cdf, "events") == [f"e{at:02}" for at in range(15)]
    assert stored(cdf, "events", "e14")["type"] == "t14"
    plans = session.execute(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement ~ '^INSERT'"
    )
    generic, custom = plans.fetchone()
    assert generic + custom == 15
    # By default PostgreSQL changes to a generic plan at some point; that one must work.
    assert (generic > 0) == (mode != "force_custom_plan")


def test_prepared_in_one_transaction_executed_in_others(session, cdf):
    with session.transaction():
        session.execute("PREPARE plan (text, jsonb) AS INSERT INTO events (external_id, metadata) VALUES ($1, $2)")
    for at in range(10):
        with session.transaction():
            session.execute(f"EXECUTE plan ('e{at}', '{{\"at\": {at}}}')")
    assert len(requests(cdf, "/events")) == 10
    assert stored(cdf, "events", "e9")["metadata"] == {"at": "9"}


def test_a_prepared_statement_follows_changes_of_the_table(session, cdf, scratch):
    table = scratch.table("changing", "external_id text, kind text OPTIONS (name 'type')", "events")
    session.execute(f"PREPARE plan (text, text) AS INSERT INTO {table} (external_id, kind) VALUES ($1, $2)")
    for at in range(7):
        session.execute(f"EXECUTE plan ('before{at}', 'x')")
    scratch.execute("ALTER FOREIGN TABLE changing ALTER COLUMN kind OPTIONS (SET name 'subtype')")
    session.execute("EXECUTE plan ('after', 'x')")
    assert stored(cdf, "events", "before6")["type"] == "x"
    assert stored(cdf, "events", "after").get("type") is None
    assert stored(cdf, "events", "after")["subtype"] == "x"


def test_executemany_is_one_transaction(gateway, cdf):
    with gateway.connect() as connection:
        connection.cursor().executemany(EVENT, [(f"e{at}", "x") for at in range(1500)])
        assert requests(cdf) == []
    assert len(dump(cdf, "events")) == 1500
    assert sorted(entry["items"] for entry in requests(cdf, "/events")) == [500, 1000]


def test_executemany_gives_rows_back(gateway, cdf):
    with gateway.connect() as connection:
        cursor = connection.cursor()
        cursor.executemany(EVENT + " RETURNING external_id", [("a", "x"), ("b", "x")], returning=True)
        returned = [cursor.fetchone()[0]]
        while cursor.nextset():
            returned.append(cursor.fetchone()[0])
    assert returned == ["a", "b"]
    assert names(cdf, "events") == ["a", "b"]


def test_a_pipeline_without_transaction_is_one_flush(session, cdf):
    with session.pipeline():
        for at in range(20):
            session.execute(EVENT, (f"e{at:02}", "x"))
    assert names(cdf, "events") == [f"e{at:02}" for at in range(20)]
    assert len(requests(cdf, "/events")) == 1


def test_a_pipeline_with_transactions_flushes_each(session, cdf):
    with session.pipeline():
        for at in range(3):
            with session.transaction():
                session.execute(EVENT, (f"e{at}", "x"))
    assert len(requests(cdf, "/events")) == 3


# ---- INSERT … SELECT ----

SELECTS = {
    "generate_series": "SELECT 'e' || n, 'n' || n FROM generate_series(1, 3) AS n",
    "union all": "SELECT 'e1', 'n1' UNION ALL SELECT 'e' || n, 'n' || n FROM staging WHERE n > 1",
    "union": "SELECT 'e1', 'n1' UNION SELECT 'e' || n, 'n' || n FROM staging",
    "limit": "SELECT 'e' || n, 'n' || n FROM generate_series(1, 100) AS n LIMIT 3",
    "order by": "SELECT 'e' || n, 'n' || n FROM staging ORDER BY n DESC OFFSET 0",
    "distinct": "SELECT DISTINCT 'e' || n, 'n' || n FROM staging, generate_series(1, 5)",
    "group by": "SELECT 'e' || n, 'n' || max(n) FROM staging GROUP BY n",
    "window": "SELECT 'e' || row_number() OVER (ORDER BY n), 'n' || n FROM staging",
    "join": "SELECT 'e' || a.n, 'n' || b.n FROM staging AS a JOIN staging AS b USING (n)",
    "with": "WITH chosen AS MATERIALIZED (SELECT n FROM staging) SELECT 'e' || n, 'n' || n FROM chosen",
    "values": "SELECT 'e' || v, 'n' || v FROM (VALUES (1), (2), (3)) AS list (v)",
    "unnest": "SELECT * FROM unnest(ARRAY['e1', 'e2', 'e3'], ARRAY['n1', 'n2', 'n3'])",
    "lateral": "SELECT 'e' || n, l.x FROM staging, LATERAL (SELECT 'n' || n AS x) AS l",
    "returning set": "SELECT 'e' || n, 'n' || n FROM (SELECT generate_series(1, 3) AS n) AS s",
}


@pytest.mark.parametrize("select", SELECTS.values(), ids=SELECTS.keys())
def test_insert_select(session, cdf, scratch, select):
    scratch.execute("CREATE TABLE staging AS SELECT n FROM generate_series(1, 3) AS n")
    session.execute("SET search_path = scratch, " + session.info.user)
    cursor = session.execute(f"INSERT INTO events (external_id, type) {select}")
    assert cursor.statusmessage == "INSERT 0 3"
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events")} == {"e1": "n1", "e2": "n2", "e3": "n3"}


def test_large_insert_select_is_split_at_the_limit_of_a_request(session, cdf):
    session.execute("INSERT INTO events (external_id) SELECT 'e' || n FROM generate_series(1, 2500) AS n")
    assert sorted(entry["items"] for entry in requests(cdf, "/events")) == [500, 1000, 1000]
    assert len(dump(cdf, "events")) == 2500


def test_from_a_staging_table_of_the_session(session, cdf):
    session.execute("CREATE TEMP TABLE staging (LIKE events)")
    session.execute("INSERT INTO staging (external_id, metadata) VALUES ('a', '{\"k\": \"v\"}'), ('b', NULL)")
    session.execute("INSERT INTO events SELECT * FROM staging")
    assert names(cdf, "events") == ["a", "b"]
    assert stored(cdf, "events", "a")["metadata"] == {"k": "v"}


def test_from_json_documents(session, cdf):
    rows = [{"external_id": "a", "start_time": "2024-01-31T12:00:00Z", "metadata": {"k": 1}}, {"external_id": "b"}]
    session.execute("INSERT INTO events SELECT * FROM jsonb_populate_recordset(NULL::events, %s)", (Jsonb(rows),))
    assert stored(cdf, "events", "a")["startTime"] == millis("2024-01-31T12:00:00")
    assert names(cdf, "events") == ["a", "b"]


def test_values_that_are_stored_compressed_or_out_of_line(session, cdf, scratch):
    scratch.execute("CREATE TABLE wide (external_id text, description text, metadata jsonb)")
    scratch.execute("ALTER TABLE wide ALTER metadata SET STORAGE EXTERNAL")
    metadata = {f"key {at}": "z" * 97 for at in range(60)}
    insert = sql.SQL("INSERT INTO wide VALUES ('e', repeat('x', 500), {})").format(Jsonb(metadata))
    scratch.execute(insert.as_string())
    session.execute("INSERT INTO events (external_id, description, metadata) SELECT * FROM scratch.wide")
    assert stored(cdf, "events", "e")["description"] == "x" * 500
    assert stored(cdf, "events", "e")["metadata"] == metadata


# ---- WITH ----


def test_arrays_that_functions_build_row_by_row(session, cdf, scratch):
    """PL/pgSQL hands arrays over in a form that is not the stored one."""
    Api(cdf).create("labels", "pump", *(f"label {at}" for at in range(20)))
    scratch.execute(
        """CREATE FUNCTION scratch.built(count int) RETURNS text[] LANGUAGE plpgsql AS $$
           DECLARE names text[] := '{pump}';
           BEGIN FOR at IN 1 .. count LOOP names := array_append(names, 'label ' || at - 1); END LOOP; RETURN names; END $$"""
    )
    session.execute(
        "INSERT INTO assets (external_id, name, labels)"
        " SELECT 'a' || n, 'A', CASE WHEN n < 9 THEN scratch.built(n) END FROM generate_series(0, 9) AS n"
    )
    labels = {
        asset["externalId"]: [label["externalId"] for label in asset.get("labels", [])]
        for asset in dump(cdf, "assets")
    }
    built = {f"a{n}": ["pump", *(f"label {at}" for at in range(n))] for n in range(9)}
    assert labels == built | {"a9": []}


def test_data_modifying_with(session, cdf):
    session.execute(
        "WITH made AS (INSERT INTO timeseries (external_id) SELECT 's' || n FROM generate_series(1, 3) AS n"
        " RETURNING external_id)"
        " INSERT INTO datapoints (external_id, timestamp, value) SELECT external_id, '2024-01-01Z', 1 FROM made"
    )
    assert [points(cdf, f"s{n}") for n in (1, 2, 3)] == [[(millis("2024-01-01"), 1.0, None)]] * 3


def test_with_insert_that_nobody_reads(session, cdf):
    result = session.execute("WITH made AS (INSERT INTO events (external_id) VALUES ('a'), ('b')) SELECT 1")
    assert result.fetchall() == [(1,)]
    assert names(cdf, "events") == ["a", "b"]


# ---- RETURNING ----


def test_returning_gives_the_row_as_sent(session, cdf):
    cursor = session.execute(
        "INSERT INTO events (external_id, start_time, metadata)"
        " VALUES ('a', '2024-01-01Z', '{\"k\": 1}'), ('b', NULL, NULL)"
        " RETURNING external_id, start_time, metadata, id, created_time"
    )
    assert cursor.fetchall() == [
        ("a", datetime(2024, 1, 1, tzinfo=timezone.utc), {"k": 1}, None, None),
        ("b", None, None, None, None),
    ]
    assert names(cdf, "events") == ["a", "b"]


def test_returning_expressions_and_everything(session, cdf):
    assert session.execute(
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{\"n\": 2}')"
        " RETURNING key || '!', (columns->>'n')::int + 1, tableoid::regclass::text"
    ).fetchone() == ("k!", 3, "raw_rows")
    assert len(session.execute("INSERT INTO events (external_id) VALUES ('e') RETURNING *").fetchone()) == 15


def test_returned_rows_can_be_copied_out(session, cdf):
    insert = "INSERT INTO events (external_id) VALUES ('a'), ('b') RETURNING external_id"
    with session.cursor().copy(f"COPY ({insert}) TO STDOUT") as copy:
        assert b"".join(copy) == b"a\nb\n"
    assert names(cdf, "events") == ["a", "b"]


# ---- views, functions, roles ----


@pytest.fixture
def second(cluster, gateway, cdf, scratch):
    """A role `second` with credentials for `second-project`, which may write to the registered role's tables."""
    cdf.admin_post("clients", {"client_id": "second", "client_secret": "second-secret", "projects": ["second-project"]})
    schema = sql.Identifier(gateway.schema)
    user = sql.Identifier(gateway.username)
    with cluster.connect() as connection:
        connection.execute("CREATE ROLE second")
        connection.execute(
            sql.SQL(
                "CREATE USER MAPPING FOR second SERVER cdf OPTIONS (project 'second-project', client_id 'second',"
                " client_secret 'second-secret', token_url {}, scope {})"
            ).format(sql.Literal(cdf.token_url), sql.Literal(cdf.scope))
        )
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO second").format(schema))
        connection.execute("GRANT ALL ON SCHEMA scratch TO second")
        connection.execute(sql.SQL("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {} TO second").format(schema))
        yield "second"
        connection.execute(sql.SQL("REVOKE second FROM {}").format(user))
        connection.execute("DROP OWNED BY second CASCADE")
        connection.execute("DROP USER MAPPING IF EXISTS FOR second SERVER cdf")
        connection.execute("DROP ROLE second")


def arrived(cdf) -> dict[str, list[str]]:
    """The events of each project."""
    return {
        project: names(cdf, "events", project=project)
        for project in ("test-project", "second-project")
        if dump(cdf, "events", project=project)
    }


def test_through_a_view(session, cdf, scratch):
    scratch.view("alarms", "SELECT external_id AS tag, type, description FROM events WHERE type = 'alarm'")
    session.execute(
        "INSERT INTO scratch.alarms (tag, type, description) VALUES ('a', 'alarm', 'x'), ('b', 'alarm', 'y')"
    )
    assert names(cdf, "events") == ["a", "b"]
    assert stored(cdf, "events", "b")["description"] == "y"


def test_through_a_view_on_a_view_with_returning(session, cdf, scratch):
    scratch.view("inner_view", "SELECT external_id, type FROM events")
    scratch.view("outer_view", "SELECT external_id AS tag FROM inner_view")
    returned = session.execute("INSERT INTO scratch.outer_view VALUES ('a') RETURNING tag").fetchall()
    assert returned == [("a",)]
    assert names(cdf, "events") == ["a"]


def test_a_check_option_of_a_view_refuses_rows(session, cdf, scratch):
    scratch.view("alarms", "SELECT external_id, type FROM events WHERE type = 'alarm' WITH CHECK OPTION")
    with refused("44000", "alarms"):
        session.execute("INSERT INTO scratch.alarms VALUES ('a', 'alarm'), ('b', 'fault')")
    assert requests(cdf) == []
    session.execute("INSERT INTO scratch.alarms VALUES ('a', 'alarm')")
    assert names(cdf, "events") == ["a"]


def test_an_instead_of_trigger_writes(session, cdf, scratch):
    scratch.execute("CREATE VIEW readings AS SELECT ''::text AS line WHERE false")
    scratch.execute(
        "CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO events (external_id, type) VALUES (split_part(NEW.line, ';', 1), split_part(NEW.line, ';', 2));"
        " RETURN NEW; END $$"
    )
    scratch.execute("CREATE TRIGGER take INSTEAD OF INSERT ON readings FOR EACH ROW EXECUTE FUNCTION take()")
    session.execute("INSERT INTO scratch.readings VALUES ('a;x'), ('b;y')")
    with session.cursor().copy("COPY scratch.readings FROM STDIN") as copy:
        copy.write_row(("c;z",))
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events")} == {"a": "x", "b": "y", "c": "z"}


def test_a_view_of_another_owner_uses_the_owners_mapping(session, cdf, scratch, second, gateway):
    scratch.view("shared", "SELECT external_id, type FROM events", owner=second)
    with session.transaction():
        session.execute("INSERT INTO scratch.shared VALUES ('through the view', 'x')")
        session.execute("INSERT INTO events (external_id) VALUES ('direct')")
        session.execute("INSERT INTO scratch.shared SELECT 'again ' || n FROM generate_series(1, 2) AS n")
    assert arrived(cdf) == {
        "test-project": ["direct"],
        "second-project": ["again 1", "again 2", "through the view"],
    }


def test_a_security_invoker_view_uses_the_callers_mapping(session, cdf, scratch, second):
    scratch.view("shared", "SELECT external_id FROM events", owner=second)
    scratch.execute("ALTER VIEW shared SET (security_invoker = true)")
    session.execute("INSERT INTO scratch.shared VALUES ('a')")
    assert arrived(cdf) == {"test-project": ["a"]}


@pytest.mark.parametrize(
    ("security", "project"), [("DEFINER", "second-project"), ("INVOKER", "test-project")], ids=["definer", "invoker"]
)
@pytest.mark.parametrize("language", ["sql", "plpgsql"])
def test_a_function_uses_the_mapping_of_its_security(
    session, cdf, scratch, second, gateway, security, project, language
):
    insert = f"INSERT INTO {gateway.schema}.events (external_id) VALUES (tag)"
    body = insert if language == "sql" else f"BEGIN {insert}; END"
    scratch.execute(
        f"CREATE FUNCTION put(tag text) RETURNS void LANGUAGE {language} SECURITY {security} AS $$ {body} $$"
    )
    scratch.execute(f"ALTER FUNCTION put OWNER TO {second}")
    for tag in "abc":
        session.execute("SELECT scratch.put(%s)", (tag,))
    assert arrived(cdf) == {project: ["a", "b", "c"]}


def test_set_role_uses_the_mapping_of_that_role(session, cdf, scratch, second, gateway):
    scratch.execute(f"GRANT {second} TO {gateway.username}")
    insert = f"INSERT INTO {gateway.schema}.events (external_id) VALUES ('%s')"
    session.execute(insert % "own")
    session.execute(f"SET ROLE {second}")
    session.execute(insert % "as second")
    session.execute("RESET ROLE")
    session.execute(insert % "own again")
    with session.transaction():
        session.execute(f"SET LOCAL ROLE {second}")
        session.execute(insert % "local")
    assert arrived(cdf) == {"test-project": ["own", "own again"], "second-project": ["as second", "local"]}


def test_a_prepared_statement_follows_the_role(session, cdf, scratch, second, gateway):
    scratch.execute(f"GRANT {second} TO {gateway.username}")
    session.execute("SET plan_cache_mode = force_generic_plan")
    session.execute(f"PREPARE plan (text) AS INSERT INTO {gateway.schema}.events (external_id) VALUES ($1)")
    for at in range(6):
        session.execute(f"EXECUTE plan ('own {at}')")
    session.execute(f"SET ROLE {second}")
    session.execute("EXECUTE plan ('as second')")
    assert arrived(cdf)["second-project"] == ["as second"]
    assert len(arrived(cdf)["test-project"]) == 6


def test_a_role_without_a_mapping_is_refused_at_the_insert(session, cdf, scratch, second, gateway):
    scratch.execute(f"GRANT {second} TO {gateway.username}")
    scratch.execute(f"DROP USER MAPPING FOR {second} SERVER cdf")
    session.execute(f"SET ROLE {second}")
    with refused("28000", "second", "CREATE USER MAPPING"):
        session.execute(f"INSERT INTO {gateway.schema}.events (external_id) VALUES ('a')")
    assert requests(cdf) == []


def test_without_the_privilege_nothing_is_sent(session, cdf, scratch):
    scratch.table("closed", "external_id text", "events")
    scratch.execute(f"REVOKE ALL ON scratch.closed FROM {session.info.user}")
    with refused("42501", "closed"):
        session.execute("INSERT INTO scratch.closed VALUES ('a')")
    assert requests(cdf) == []


# ---- partitioned and inheriting tables ----


@pytest.fixture
def facade(scratch):
    """A partitioned table whose one partition is a foreign table: what tools that want a base table are given."""
    scratch.execute(
        "CREATE TABLE facade (external_id text, type text, metadata jsonb, start_time timestamptz)"
        " PARTITION BY LIST (external_id)"
    )
    scratch.execute(
        "CREATE FOREIGN TABLE facade_cdf PARTITION OF facade DEFAULT SERVER cdf OPTIONS (resource 'events')"
    )
    return "scratch.facade"


def test_insert_into_a_partitioned_table(session, cdf, facade):
    session.execute(f"INSERT INTO {facade} (external_id, type) VALUES ('a', 'x'), ('b', 'y')")
    returned = session.execute(
        f"INSERT INTO {facade} (external_id, metadata) VALUES ('c', '{{}}') RETURNING *"
    ).fetchone()
    assert returned == ("c", None, {}, None)
    for at in range(10):
        session.execute(f"INSERT INTO {facade} (external_id, type) VALUES (%s, %s)", (f"p{at}", "z"), prepare=True)
    assert len(dump(cdf, "events")) == 13


def test_copy_into_a_partitioned_table(session, cdf, facade):
    with session.cursor().copy(f"COPY {facade} (external_id, metadata) FROM STDIN") as copy:
        for at in range(1200):
            copy.write_row((f"e{at}", '{"k": 1}'))
    assert sorted(entry["items"] for entry in requests(cdf, "/events")) == [200, 1000]
    assert stored(cdf, "events", "e1199")["metadata"] == {"k": "1"}


def test_a_partition_whose_columns_are_in_another_order(session, cdf, scratch):
    scratch.execute("CREATE TABLE parent (external_id text, gone int, type text) PARTITION BY LIST (type)")
    scratch.execute("ALTER TABLE parent DROP COLUMN gone")
    scratch.table("child", "type text, external_id text", "events")
    scratch.execute("ALTER TABLE parent ATTACH PARTITION child FOR VALUES IN ('alarm')")
    scratch.execute("CREATE TABLE rest PARTITION OF parent DEFAULT")
    session.execute("INSERT INTO scratch.parent VALUES ('a', 'alarm'), ('b', 'other')")
    with session.cursor().copy("COPY scratch.parent FROM STDIN") as copy:
        copy.write_row(("c", "alarm"))
        copy.write_row(("d", "other"))
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events")} == {"a": "alarm", "c": "alarm"}
    assert session.execute("SELECT external_id FROM scratch.rest ORDER BY 1").fetchall() == [("b",), ("d",)]


def test_a_partitioned_table_of_another_owner_runs_with_the_callers_mapping(session, cdf, facade, scratch, second):
    scratch.execute(f"ALTER TABLE facade OWNER TO {second}")
    session.execute(f"INSERT INTO {facade} (external_id) VALUES ('a')")
    scratch.view("above", "SELECT external_id FROM facade", owner=second)
    session.execute("INSERT INTO scratch.above VALUES ('b')")
    assert arrived(cdf) == {"test-project": ["a"], "second-project": ["b"]}


@pytest.fixture
def sorted_out(scratch):
    """A partitioned table with an events partition, a RAW one and an ordinary one."""
    scratch.execute("CREATE TABLE mixed (external_id text, type text) PARTITION BY LIST (type)")
    scratch.table("alarms", "external_id text, type text", "events")
    raw = {"database": "d", "table": "t", "primary_key": "external_id"}
    scratch.table("readings", "external_id text, type text", "raw_rows", **raw)
    scratch.execute("ALTER TABLE mixed ATTACH PARTITION alarms FOR VALUES IN ('alarm')")
    scratch.execute("ALTER TABLE mixed ATTACH PARTITION readings FOR VALUES IN ('reading')")
    scratch.execute("CREATE TABLE others PARTITION OF mixed DEFAULT")
    return "scratch.mixed"


def test_one_statement_into_partitions_of_several_resources(session, cdf, sorted_out):
    session.execute(
        f"INSERT INTO {sorted_out} SELECT 'e' || n, (ARRAY['alarm', 'reading', 'other'])[1 + n % 3]"
        " FROM generate_series(0, 8) AS n"
    )
    assert names(cdf, "events") == ["e0", "e3", "e6"]
    assert names(cdf, "raw") == ["e1", "e4", "e7"]
    rest = session.execute("SELECT external_id FROM scratch.others ORDER BY 1").fetchall()
    assert rest == [("e2",), ("e5",), ("e8",)]


def test_a_row_that_moves_into_a_foreign_partition_is_inserted(session, cdf, sorted_out):
    session.execute(f"INSERT INTO {sorted_out} VALUES ('a', 'other'), ('b', 'other')")
    session.execute(f"UPDATE {sorted_out} SET type = 'alarm' WHERE type = 'other' AND external_id = 'a'")
    assert names(cdf, "events") == ["a"]
    assert session.execute("SELECT external_id FROM scratch.others").fetchall() == [("b",)]


def test_do_nothing_through_a_partitioned_table(session, cdf, sorted_out):
    session.execute(f"INSERT INTO {sorted_out} VALUES ('a', 'alarm')")
    before = stored(cdf, "events", "a")
    session.execute(f"INSERT INTO {sorted_out} VALUES ('a', 'alarm'), ('b', 'alarm') ON CONFLICT DO NOTHING")
    assert stored(cdf, "events", "a") == before
    assert names(cdf, "events") == ["a", "b"]
    assert requests(cdf, "/events/update") == []


# ---- triggers and constraints ----


def test_row_triggers(session, cdf, scratch):
    table = scratch.table("watched", "external_id text, type text", "events")
    scratch.execute("CREATE TABLE seen (what text)")
    scratch.execute(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.type = 'skip' THEN RETURN NULL; END IF; NEW.type := upper(NEW.type); RETURN NEW; END $$"
    )
    scratch.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO scratch.seen VALUES (NEW.external_id || NEW.type); RETURN NULL; END $$"
    )
    scratch.execute("CREATE TRIGGER a BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION change()")
    scratch.execute("CREATE TRIGGER b AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION note()")
    cursor = session.execute(f"INSERT INTO {table} VALUES ('a', 'x'), ('b', 'skip'), ('c', 'z')")
    assert cursor.statusmessage == "INSERT 0 2"
    with session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        copy.write_row(("d", "skip"))
        copy.write_row(("e", "copied"))
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events")} == {"a": "X", "c": "Z", "e": "COPIED"}
    assert session.execute("SELECT what FROM scratch.seen ORDER BY 1").fetchall() == [("aX",), ("cZ",), ("eCOPIED",)]


def test_a_rule_of_another_table(session, cdf, scratch, gateway):
    scratch.execute("CREATE TABLE local (tag text, moment timestamp)")
    scratch.execute(f"ALTER TABLE local OWNER TO {gateway.username}")
    session.execute(
        "CREATE RULE forward AS ON INSERT TO scratch.local DO ALSO"
        f" INSERT INTO {gateway.schema}.events (external_id, start_time) VALUES (NEW.tag, NEW.moment)"
    )
    session.execute("SET TimeZone = 'America/New_York'")
    session.execute("INSERT INTO scratch.local VALUES ('a', '2024-01-01'), ('b', '2024-01-01')")
    assert {event["externalId"]: event["startTime"] for event in dump(cdf, "events")} == {
        "a": millis("2024-01-01"),
        "b": millis("2024-01-01"),
    }


def test_a_deferred_trigger_that_inserts_at_commit_is_included(session, cdf, scratch, gateway):
    scratch.execute("CREATE TABLE local (tag text)")
    scratch.execute(
        f"CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO {gateway.schema}.events (external_id) VALUES (NEW.tag); RETURN NULL; END $$"
    )
    scratch.execute(
        "CREATE CONSTRAINT TRIGGER forward AFTER INSERT ON local DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION forward()"
    )
    with session.transaction():
        session.execute("INSERT INTO scratch.local VALUES ('a')")
        session.execute("INSERT INTO scratch.local VALUES ('b')")
        assert requests(cdf) == []
    assert names(cdf, "events") == ["a", "b"]
    with pytest.raises(ZeroDivisionError), session.transaction():
        session.execute("INSERT INTO scratch.local VALUES ('c')")
        raise ZeroDivisionError
    assert names(cdf, "events") == ["a", "b"]


CONSTRAINED = "external_id text NOT NULL, type text CHECK (type <> 'bad'), subtype text CHECK (length(subtype) < 4)"


@pytest.mark.parametrize(
    ("row", "sqlstate", "told"),
    [
        ((None, "x", "y"), "23502", "external_id"),
        (("a", "bad", "y"), "23514", "constrained_type_check"),
        (("a", "x", "long"), "23514", "constrained_subtype_check"),
    ],
    ids=["not null", "check", "second check"],
)
def test_constraints_of_the_table_are_enforced(session, cdf, scratch, row, sqlstate, told):
    table = scratch.table("constrained", CONSTRAINED, "events")
    with refused(sqlstate, told):
        session.execute(f"INSERT INTO {table} VALUES ('good', 'x', NULL), (%s, %s, %s)", row)
    with refused(sqlstate, told), session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        copy.write_row(("good", "x", None))
        copy.write_row(row)
    assert requests(cdf) == []
    session.execute(f"INSERT INTO {table} VALUES ('good', NULL, 'abc')")
    assert names(cdf, "events") == ["good"]


def test_constraints_of_a_domain_are_enforced(session, cdf, scratch):
    scratch.execute("CREATE DOMAIN tag AS text CHECK (VALUE ~ '^[a-z]+$') NOT NULL")
    table = scratch.table("tagged", "external_id tag, type text", "events")
    with refused("23514", "tag"):
        session.execute(f"INSERT INTO {table} VALUES ('A1', 'x')")
    with refused("23502", "tag"):
        session.execute(f"INSERT INTO {table} (type) VALUES ('x')")
    session.execute(f"INSERT INTO {table} VALUES ('abc', 'x')")
    assert names(cdf, "events") == ["abc"]


# ---- tables declared by hand ----


def test_a_part_of_the_columns_under_other_names(session, cdf, scratch):
    table = scratch.table(
        "alarms",
        "severity text OPTIONS (name 'subtype'), tag text OPTIONS (name 'externalId'), start_time timestamptz",
        "events",
    )
    session.execute(f"INSERT INTO {table} VALUES ('high', 'a', '2024-01-01Z')")
    event = stored(cdf, "events", "a")
    assert event["subtype"] == "high" and event["startTime"] == millis("2024-01-01")


@pytest.mark.parametrize(
    ("definition", "resource", "options"),
    [
        ("external_id text, a text OPTIONS (name 'type'), b text OPTIONS (name 'type')", "events", {}),
        ("external_id text, type text, b text OPTIONS (name 'type')", "events", {}),
        ("external_id text, b text OPTIONS (name 'externalId')", "events", {}),
        ("key text, a text, b text OPTIONS (name 'a')", "raw_rows", {"database": "d", "table": "t"}),
    ],
)
def test_two_columns_of_one_property_are_refused(session, cdf, scratch, definition, resource, options):
    table = scratch.table("twice", definition, resource, **options)
    with refused("HV00J", '"b"'):
        session.execute(f"INSERT INTO {table} VALUES ('row', 'x')")
    assert requests(cdf) == []


@pytest.mark.parametrize("name", ["external_id", "externalId"])
def test_a_column_may_be_called_by_either_name(session, cdf, scratch, name):
    table = scratch.table("renamed", f"x text OPTIONS (name '{name}')", "events")
    session.execute(f"INSERT INTO {table} VALUES ('a')")
    assert names(cdf, "events") == ["a"]


def test_an_unknown_column_is_refused_with_those_there_are(session, cdf, scratch):
    table = scratch.table("wrong", "external_id text, colour text", "events")
    with refused("HV00J", "colour", "start_time"):
        session.execute(f"INSERT INTO {table} VALUES ('a', 'red')")
    assert requests(cdf) == []


def test_dropped_and_added_columns(session, cdf, scratch):
    table = scratch.table(
        "altered", "gone1 text OPTIONS (name 'source'), external_id text, gone2 text, type text", "events"
    )
    scratch.execute("ALTER FOREIGN TABLE altered DROP COLUMN gone1, DROP COLUMN gone2")
    session.execute(f"INSERT INTO {table} VALUES ('a', 'x') RETURNING type")
    scratch.execute("ALTER FOREIGN TABLE altered ADD COLUMN subtype text")
    assert session.execute(f"INSERT INTO {table} VALUES ('b', 'y', 'z') RETURNING *").fetchone() == ("b", "y", "z")
    with session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        copy.write_row(("c", "z", None))
    for at in range(10):
        session.execute(f"INSERT INTO {table} (type, external_id) VALUES (%s, %s)", ("t", f"p{at}"), prepare=True)
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events") if item["externalId"] < "d"} == {
        "a": "x",
        "b": "y",
        "c": "z",
    }
    assert stored(cdf, "events", "b")["subtype"] == "z"
    assert stored(cdf, "events", "p9")["type"] == "t"


def test_defaults_identities_and_generated_columns(session, cdf, scratch):
    scratch.execute("CREATE SEQUENCE counter START 7")
    table = scratch.table(
        "computed",
        "external_id text DEFAULT 'e' || nextval('scratch.counter'), type text DEFAULT 'alarm',"
        " subtype text GENERATED ALWAYS AS (upper(type)) STORED",
        "events",
    )
    assert session.execute(f"INSERT INTO {table} DEFAULT VALUES RETURNING *").fetchone() == ("e7", "alarm", "ALARM")
    session.execute(f"INSERT INTO {table} VALUES (DEFAULT, 'x', DEFAULT), ('own', DEFAULT, DEFAULT)")
    with session.cursor().copy(f"COPY {table} (type) FROM STDIN") as copy:
        copy.write_row(("copied",))
    assert {item["externalId"]: (item["type"], item["subtype"]) for item in dump(cdf, "events")} == {
        "e7": ("alarm", "ALARM"),
        "e8": ("x", "X"),
        "own": ("alarm", "ALARM"),
        "e9": ("copied", "COPIED"),
    }


TYPES = {
    # SQL type: (literal, property, what CDF holds)
    "varchar(20)": ("'abc'", "description", "abc"),
    "char(3)": ("'abc'", "description", "abc"),
    "name": ("'abc'", "description", "abc"),
    "uuid": ("'6F9619FF-8B86-D011-B42D-00CF4FC964FF'", "description", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    "int": ("12345", "description", "12345"),
    "bigint": ("-9007199254740993", "description", "-9007199254740993"),
    "numeric(12,3)": ("1.5", "description", "1.500"),
    "scratch.colour": ("'red'", "description", "red"),
    "scratch.short_text": ("'abc'", "description", "abc"),
    "inet": ("'10.0.0.1'", "description", "10.0.0.1"),
    "text": ('\'{"k": 1.50, "n": null}\'', "metadata", {"k": "1.50"}),
    "varchar": ("'{\"k\": [1, 2]}'", "metadata", {"k": "[1, 2]"}),
    "json": ("'{\"k\": true}'", "metadata", {"k": "true"}),
    "jsonb": ('\'{"k": {"x": 1}}\'', "metadata", {"k": '{"x": 1}'}),
    "timestamptz": ("'2024-01-31 12:00:00.5+02'", "startTime", millis("2024-01-31T10:00:00.5")),
    "timestamp": ("'2024-01-31 12:00:00'", "startTime", millis("2024-01-31T12:00:00")),
    "date": ("'2024-01-31'", "startTime", millis("2024-01-31T00:00:00")),
    "scratch.moment": ("'2024-01-31 12:00:00'", "startTime", millis("2024-01-31T12:00:00")),
}


@pytest.mark.parametrize(("kind", "case"), TYPES.items(), ids=TYPES.keys())
def test_columns_of_other_types(session, cdf, scratch, kind, case):
    literal, prop, wanted = case
    scratch.execute("CREATE TYPE colour AS ENUM ('red', 'green')")
    scratch.execute("CREATE DOMAIN short_text AS varchar(5)")
    scratch.execute("CREATE DOMAIN moment AS timestamp")
    table = scratch.table("typed", f"external_id text, value {kind} OPTIONS (name '{prop}')", "events")
    session.execute("SET TimeZone = 'America/New_York'")
    session.execute(f"INSERT INTO {table} VALUES ('e', {literal})")
    found = stored(cdf, "events", "e")[prop]
    if isinstance(wanted, dict):
        assert {key: value.replace(" ", "") for key, value in found.items()} == {
            key: value.replace(" ", "") for key, value in wanted.items()
        }
    else:
        assert found == wanted


@pytest.mark.parametrize("kind", ["int", "bigint", "numeric(5,0)", "uuid", "varchar(40)"])
def test_external_ids_of_other_types(session, cdf, scratch, kind):
    key = "6f9619ff-8b86-d011-b42d-00cf4fc964ff" if kind == "uuid" else "4711"
    events = scratch.table("keyed", f"external_id {kind}, type text", "events")
    session.execute(f"INSERT INTO {events} VALUES ('{key}', 'x'), ('{key}', 'y')")
    assert stored(cdf, "events", key)["type"] == "y"
    Api(cdf).create("timeseries", key)
    table = scratch.table("points", f'external_id {kind}, "timestamp" timestamptz, value float8', "datapoints")
    session.execute(f"INSERT INTO {table} VALUES ('{key}', '2024-01-01Z', 1)")
    assert points(cdf, key) == [(millis("2024-01-01"), 1.0, None)]


@pytest.mark.parametrize("kind", ["smallint", "int", "numeric(20,0)", "bigint", "scratch.small"])
def test_ids_of_other_integer_types(session, cdf, scratch, kind):
    scratch.execute("CREATE DOMAIN small AS int")
    scratch.execute("CREATE TYPE colour AS ENUM ('red')")
    table = scratch.table("typed", f"external_id text, data_set_id {kind}", "events")
    with refused("23503", "31"):
        session.execute(f"INSERT INTO {table} VALUES ('e', 31)")
    assert stored_bodies(cdf) == [31]


def stored_bodies(cdf) -> list[int]:
    """The data set of the first item of each request."""
    return [entry["body"]["items"][0]["dataSetId"] for entry in requests(cdf, "/events")]


@pytest.mark.parametrize("kind", ["int[]", "smallint[]", "numeric[]", "bigint[]"])
def test_arrays_of_other_integer_types(session, cdf, scratch, kind):
    table = scratch.table("typed", f"external_id text, asset_ids {kind}", "events")
    with refused("23503"):
        session.execute(f"INSERT INTO {table} VALUES ('e', '{{5, 7}}')")
    assert requests(cdf, "/events")[0]["body"]["items"][0]["assetIds"] == [5, 7]


@pytest.mark.parametrize("kind", ["real", "int", "bigint", "smallint", "numeric", "numeric(10,2)", "double precision"])
def test_point_values_of_other_numeric_types(session, cdf, scratch, kind):
    Api(cdf).create("timeseries", "s")
    table = scratch.table("typed", f'external_id varchar, "timestamp" timestamp, value {kind}', "datapoints")
    session.execute(f"INSERT INTO {table} VALUES ('s', '2024-01-01', 12)")
    assert points(cdf, "s") == [(millis("2024-01-01"), 12.0, None)]


@pytest.mark.parametrize("kind", ["boolean", "scratch.flag"])
def test_booleans(session, cdf, scratch, kind):
    scratch.execute("CREATE DOMAIN flag AS boolean")
    table = scratch.table("typed", f"external_id text, is_step {kind}", "timeseries")
    session.execute(f"INSERT INTO {table} VALUES ('yes', 't'), ('no', 'f'), ('default', NULL)")
    assert {item["externalId"]: item["isStep"] for item in dump(cdf, "timeseries")} == {
        "yes": True,
        "no": False,
        "default": False,
    }


@pytest.mark.parametrize(
    ("column", "literal"),
    [
        ("start_time int", "5"),
        ("start_time text", "'2024-01-01'"),
        ("metadata int", "5"),
        ("asset_ids text", "'{1,2}'"),
        ("description boolean", "true"),
        ("data_set_id text", "'x'"),
    ],
)
def test_a_type_that_does_not_fit_is_refused_by_name(session, cdf, scratch, column, literal):
    table = scratch.table("typed", f"external_id text, {column}", "events")
    with refused("22023", column.split()[0]):
        session.execute(f"INSERT INTO {table} VALUES ('e', {literal})")
    assert requests(cdf) == []


# ---- sessions ----


def test_discard_all_between_uses(session, cdf):
    session.prepare_threshold = None
    for at in range(4):
        session.execute(EVENT, (f"a{at}", "x"))
        session.execute("DISCARD ALL")
        with session.transaction():
            session.execute(EVENT, (f"b{at}", "x"))
        session.execute("DISCARD ALL")
    assert len(names(cdf, "events")) == 8


def test_rows_of_a_cursor(gateway, cdf, scratch):
    scratch.execute("CREATE TABLE source AS SELECT n FROM generate_series(1, 30) AS n")
    with gateway.connect() as connection:
        cursor = connection.cursor(name="portal", withhold=True)
        cursor.execute("SELECT n FROM scratch.source ORDER BY n")
        for _ in range(3):
            rows = cursor.fetchmany(10)
            connection.cursor().executemany(
                "INSERT INTO events (external_id) VALUES (%s)", [(f"e{n}",) for [n] in rows]
            )
            connection.commit()
        cursor.close()
    assert len(names(cdf, "events")) == 30
    assert len(requests(cdf, "/events")) == 3


def test_a_loop_over_a_cursor_in_a_block(session, cdf):
    session.execute(
        "DO $$ DECLARE n int; c CURSOR FOR SELECT * FROM generate_series(1, 25); BEGIN"
        " OPEN c; LOOP FETCH c INTO n; EXIT WHEN NOT FOUND;"
        " INSERT INTO events (external_id, start_time)"
        " VALUES ('e' || n, '2024-01-01'::timestamptz + n * interval '1 h');"
        " END LOOP; END $$"
    )
    assert len(names(cdf, "events")) == 25
    assert len(requests(cdf, "/events")) == 1
    assert stored(cdf, "events", "e24")["startTime"] == millis("2024-01-02")


def test_returning_read_through_a_cursor_loop(session, cdf):
    session.execute(
        "DO $$ DECLARE r record; total int := 0; BEGIN"
        " FOR r IN INSERT INTO events (external_id) SELECT 'e' || n FROM generate_series(1, 120) AS n RETURNING *"
        " LOOP total := total + 1; END LOOP;"
        " IF total <> 120 THEN RAISE 'only %', total; END IF; END $$"
    )
    assert len(names(cdf, "events")) == 120


def test_several_resources_in_one_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01Z', 1)")
        session.execute(
            "INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('t', '2024-01-01Z', 'on')"
        )
        session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{child}')")
        session.execute("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('s', 'child')")
        session.execute("INSERT INTO timeseries (external_id, is_string) VALUES ('t', true)")
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('child', 'C', 'root')")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'R')")
        session.execute("INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{}')")
        assert requests(cdf) == []
    child = stored(cdf, "assets", "child")["id"]
    assert stored(cdf, "events", "e")["assetIds"] == [child]
    assert stored(cdf, "timeseries", "s")["assetId"] == child
    assert points(cdf, "s") == [(millis("2024-01-01"), 1.0, None)]
    assert points(cdf, "t") == [(millis("2024-01-01"), "on", None)]
    assert columns(cdf, "k") == {}


def test_a_transaction_in_psql(cluster, gateway, cdf):
    cluster.psql(
        "BEGIN;\n"
        "INSERT INTO timeseries (external_id, name) VALUES ('s', 'S');\n"
        '\\copy datapoints (external_id, "timestamp", value) from stdin csv\n'
        "s,2026-01-01 00:00:00,20.5\ns,2026-01-01 00:01:00,20.7\n\\.\n"
        "COMMIT;\n",
        dsn=gateway.dsn,
    )
    assert points(cdf, "s") == [(millis("2026-01-01"), 20.5, None), (millis("2026-01-01T00:01:00"), 20.7, None)]


def test_an_error_at_commit_leaves_the_session_usable(gateway, cdf):
    with gateway.connect() as connection:
        connection.execute("INSERT INTO events (external_id, data_set_id) VALUES ('a', 99)")
        with pytest.raises(psycopg.Error) as caught:
            connection.commit()
        assert caught.value.sqlstate == "23503"
        assert '"a"' in told(caught.value)
        connection.rollback()
        connection.execute(EVENT, ("b", "x"))
        connection.commit()
    assert names(cdf, "events") == ["b"]
