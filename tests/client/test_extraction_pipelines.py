"""Extraction pipelines and their runs: what a load reports of itself."""

from __future__ import annotations

import pytest
from support import dump, names, paths, refused, requests, stored

RUNS = "extpipes/runs"


@pytest.fixture
def pipeline(api):
    """A pipeline called p, in the data set called set."""
    (data_set,) = api.create("datasets", "set")
    api.create("extpipes", "p", dataSetId=data_set)
    return data_set


def sent(cdf) -> list[tuple]:
    """The runs that CDF holds, in the order in which they came."""
    return [(run["externalId"], run["status"], run.get("message")) for run in dump(cdf, RUNS)]


# Pipelines.


def test_every_column_of_a_pipeline(session, cdf, api):
    (data_set,) = api.create("datasets", "set")
    session.execute(
        "INSERT INTO extraction_pipelines (external_id, name, description, data_set_external_id, raw_tables, schedule,"
        " contacts, metadata, source, documentation, notification_config, created_by) VALUES ('p', 'P', 'd', 'set',"
        """ '[{"dbName": "d", "tableName": "t"}]', 'On trigger', '[{"name": "N", "email": "n@x.no", "sendNotification": true}]',"""
        """ '{"k": 5}', 's', 'doc', '{"allowedNotSeenRangeInMinutes": 10}', 'me')"""
    )
    found = stored(cdf, "extpipes", "p")
    assert found | {
        "name": "P",
        "description": "d",
        "dataSetId": data_set,
        "rawTables": [{"dbName": "d", "tableName": "t"}],
        "schedule": "On trigger",
        "contacts": [{"name": "N", "email": "n@x.no", "sendNotification": True}],
        "metadata": {"k": "5"},
        "source": "s",
        "documentation": "doc",
        "notificationConfig": {"allowedNotSeenRangeInMinutes": 10},
        "createdBy": "me",
    } == found
    row = session.execute("SELECT * FROM extraction_pipelines").fetchone()
    columns = [column.name for column in session.execute("SELECT * FROM extraction_pipelines LIMIT 0").description]
    read = dict(zip(columns, row, strict=True))
    assert (read["data_set_id"], read["data_set_external_id"]) == (data_set, "set")
    assert read["contacts"][0]["sendNotification"] is True and read["created_by"] == "me"
    # CDF returns 0 for what has never happened.
    assert [read[name] for name in ("last_success", "last_failure", "last_message", "last_seen")] == [None] * 4


def test_an_insert_is_an_upsert(session, cdf, api, pipeline):
    session.execute(
        "INSERT INTO extraction_pipelines (external_id, name, data_set_id, schedule) VALUES ('p', 'new', %s, 'Continuous')",
        [pipeline],
    )
    # A row of an existing one may leave out what is needed to create one.
    session.execute("INSERT INTO extraction_pipelines (external_id, description) VALUES ('p', 'd')")
    found = stored(cdf, "extpipes", "p")
    assert (found["name"], found["schedule"], found["description"]) == ("new", "Continuous", "d")
    with refused("22004", "data_set_id", '"q"'):
        session.execute("INSERT INTO extraction_pipelines (external_id, name) VALUES ('q', 'q')")


def test_update_clears_with_what_is_empty(session, cdf, pipeline):
    session.execute(
        "UPDATE extraction_pipelines SET description = 'd', schedule = 'Continuous', source = 's', documentation = 'x',"
        """ metadata = '{"a": "b"}', raw_tables = '[{"dbName": "d", "tableName": "t"}]', contacts = '[{"name": "n"}]',"""
        """ notification_config = '{"allowedNotSeenRangeInMinutes": 5}' WHERE external_id = 'p'"""
    )
    cleared = "description, schedule, source, documentation, raw_tables, contacts, notification_config".split(", ")
    sets = ", ".join(f"{name} = NULL" for name in [*cleared, "metadata"])
    assert session.execute(f"UPDATE extraction_pipelines SET {sets} WHERE external_id = 'p'").rowcount == 1
    update = requests(cdf, "/extpipes/update")[-1]["body"]["items"][0]["update"]
    assert update["description"] == {"set": ""} and update["contacts"] == {"set": []} and update["metadata"] == {"set": {}}
    assert session.execute(f"SELECT {', '.join(cleared)} FROM extraction_pipelines").fetchall() == [(None,) * len(cleared)]
    with refused("22004", "data_set_id"):
        session.execute("UPDATE extraction_pipelines SET data_set_id = NULL WHERE external_id = 'p'")
    with refused("22023", "created_by"):
        session.execute("UPDATE extraction_pipelines SET created_by = 'x' WHERE external_id = 'p'")
    assert session.execute("DELETE FROM extraction_pipelines WHERE external_id = 'p'").rowcount == 1
    assert names(cdf, "extpipes") == []


def test_a_new_pipeline_in_a_new_data_set_has_runs(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'success')")
        session.execute(
            "INSERT INTO extraction_pipelines (external_id, name, data_set_external_id) VALUES ('p', 'P', 'set')"
        )
        session.execute("INSERT INTO data_sets (external_id, name) VALUES ('set', 'Set')")
    assert sent(cdf) == [("p", "success", None)]
    last_success, last_failure = session.execute("SELECT last_success, last_failure FROM extraction_pipelines").fetchone()
    assert last_success is not None and last_failure is None


@pytest.mark.parametrize(
    ("column", "value", "sqlstate", "text"),
    [
        ("name", "x" * 141, "22001", "140"),
        ("name", "", "22023", "empty"),
        ("external_id", "x" * 256, "22001", "255"),
        ("external_id", "", "22023", "empty"),
        ("description", "x" * 501, "22001", "500"),
        ("source", "x" * 256, "22001", "255"),
        ("documentation", "x" * 10001, "22001", "10000"),
        ("raw_tables", "{}", "22023", "array"),
        ("raw_tables", '[{"dbName": "d"}]', "22023", "tableName"),
        ("contacts", '[{"mail": "x"}]', "22023", "email"),
        ("contacts", '[{"name": "a"}, {"name": 5}]', "22023", "element 2"),
        ("notification_config", '{"allowedNotSeenRangeInMinutes": "5"}', "22023", "whole number"),
        ("last_success", "2024-01-01", "22023", "last_success"),
    ],
)
def test_values_are_checked_at_the_insert(session, cdf, column, value, sqlstate, text):
    row = {"external_id": "p", "name": "P", "data_set_id": "5", column: value}
    with session.transaction(force_rollback=True), refused(sqlstate, f'"{column}"', text):
        values = ", ".join(f"'{value}'" for value in row.values())
        session.execute(f"INSERT INTO extraction_pipelines ({', '.join(row)}) VALUES ({values})")
    assert requests(cdf) == []


# Runs.


def test_a_run_has_what_was_written(session, cdf, pipeline):
    session.execute(
        "INSERT INTO extraction_pipeline_runs (external_id, status, message, created_time) VALUES"
        " ('p', 'failure', 'no', '2024-01-01 00:00:01')"
    )
    (run,) = dump(cdf, RUNS)
    assert (run["status"], run["message"], run["createdTime"]) == ("failure", "no", 1704067201000)
    rows = session.execute("SELECT id, external_id, status, message, extract(epoch FROM created_time) FROM extraction_pipeline_runs")
    assert rows.fetchall() == [(run["id"], "p", "failure", "no", 1704067201)]
    assert session.execute("SELECT last_message FROM extraction_pipelines").fetchone() == ("no",)


def test_a_run_goes_last(session, cdf, api, pipeline):
    api.create("events", "old")
    before = len(paths(cdf))
    with session.transaction():
        session.execute("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'success')")
        session.execute("INSERT INTO raw_rows (db_name, table_name, key) SELECT 'd', 't' || i, 'k' FROM generate_series(1, 20) i")
        session.execute("INSERT INTO timeseries (external_id) VALUES ('s')")
        session.execute("INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('s', now(), 1)")
        session.execute("DELETE FROM events WHERE external_id = 'old'")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
    asked = paths(cdf)[before:]
    assert asked[-1].endswith("/extpipes/runs") and sum(path.endswith("/extpipes/runs") for path in asked) == 1
    assert any(path.endswith("/events/delete") for path in asked)


def test_runs_go_in_the_order_written(session, cdf, pipeline):
    session.execute("BEGIN")
    insert = "INSERT INTO extraction_pipeline_runs (external_id, status, message) VALUES ('p', 'seen', %s)"
    session.execute(insert, ["1"])
    session.execute("SAVEPOINT a")
    for message in "234":
        session.execute(insert, [message])
    session.execute("SAVEPOINT b")
    session.execute(insert, ["gone"])
    session.execute("ROLLBACK TO b")
    session.execute("RELEASE a")
    session.execute("INSERT INTO extraction_pipeline_runs (external_id, status, message) SELECT 'p', 'seen', i::text FROM generate_series(5, 30) i")
    session.execute("COMMIT")
    assert [message for _, _, message in sent(cdf)] == [str(number) for number in range(1, 31)]


def test_a_load_that_is_refused_reports_nothing(session, cdf, pipeline):
    with refused("23503"), session.transaction():
        session.execute("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'success')")
        session.execute("INSERT INTO assets (external_id, name, parent_id) VALUES ('a', 'a', 4711)")
    assert sent(cdf) == []
    session.execute("INSERT INTO extraction_pipeline_runs (external_id, status, message) VALUES ('p', 'failure', 'why')")
    assert sent(cdf) == [("p", "failure", "why")]


@pytest.mark.parametrize(
    ("statement", "sqlstate", "texts"),
    [
        ("UPDATE extraction_pipeline_runs SET message = 'x' WHERE external_id = 'p'", "0A000", ["extraction pipeline runs"]),
        ("DELETE FROM extraction_pipeline_runs WHERE external_id = 'p'", "0A000", ["extraction pipeline runs", "new"]),
        ("TRUNCATE extraction_pipeline_runs", "0A000", ["extraction pipeline runs"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen') ON CONFLICT (external_id) DO NOTHING",
         "42P10", ["extraction_pipeline_runs", "no key", "each row is a new"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen')"
         " ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status", "42P10", ["no key"]),
        ("INSERT INTO extraction_pipeline_runs (id, external_id, status) VALUES (5, 'p', 'seen')", "22023", ['"id"']),
        ("INSERT INTO extraction_pipeline_runs (external_id) VALUES ('p')", "22004", ['"status"']),
        ("INSERT INTO extraction_pipeline_runs (status) VALUES ('seen')", "22004", ['"external_id"']),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'done')", "22023",
         ['"status"', "success, failure, seen"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status, message) VALUES ('p', 'seen', repeat('x', 1001))",
         "22001", ['"message"', "1000"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES (repeat('x', 256), 'seen')", "22001", ["255"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('', 'seen')", "22023", ['"external_id"']),
        ("INSERT INTO extraction_pipeline_runs (external_id, status, created_time) VALUES ('p', 'seen', '1960-01-01')",
         "22003", ['"created_time"', "1970"]),
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('none', 'seen')", "23503", ["none"]),
    ],
)  # fmt: skip
def test_what_runs_refuse(session, cdf, scratch, gateway, pipeline, statement, sqlstate, texts):
    if statement.startswith("TRUNCATE"):
        scratch.execute(f"GRANT TRUNCATE ON {gateway.schema}.extraction_pipeline_runs TO {gateway.username}")
    with refused(sqlstate, *texts):
        session.execute(statement)
    assert sent(cdf) == []


def test_a_conflict_without_a_target_is_none(session, cdf, pipeline):
    done = session.execute(
        "INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen'), ('p', 'seen') ON CONFLICT DO NOTHING"
    )
    assert done.rowcount == 2 and len(sent(cdf)) == 2


def test_an_unknown_outcome_is_not_sent_again(session, cdf, pipeline):
    cdf.admin_post("faults", {"path": "/extpipes/runs", "mode": "drop_after", "times": 1})
    with refused("08006", "extraction_pipeline_runs"):
        session.execute("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen')")
    assert len(sent(cdf)) == 1


def test_reading_runs(session, cdf, api, pipeline):
    api.create("extpipes", "q", dataSetId=pipeline)
    for number in range(5):
        name, status = "pq"[number % 2], ["success", "failure"][number % 2]
        api.post("/extpipes/runs", {"externalId": name, "status": status, "createdTime": number * 1000, "message": str(number)})
    before = len(requests(cdf))
    read = lambda condition: session.execute(
        f"SELECT external_id, message FROM extraction_pipeline_runs WHERE {condition} ORDER BY created_time"
    ).fetchall()
    assert read("external_id = 'p'") == [("p", "0"), ("p", "2"), ("p", "4")]
    assert [entry["body"]["filter"] for entry in requests(cdf)[before:]] == [{"externalId": "p"}]
    assert read("true") == [("p", "0"), ("q", "1"), ("p", "2"), ("q", "3"), ("p", "4")]
    assert read("external_id IN ('p', 'q') AND status = 'failure'") == [("q", "1"), ("q", "3")]
    assert requests(cdf)[-1]["body"]["filter"] == {"externalId": "q", "statuses": ["failure"]}
    assert read("external_id = 'p' AND created_time >= '1970-01-01 00:00:02Z'") == [("p", "2"), ("p", "4")]
    assert requests(cdf)[-1]["body"]["filter"]["createdTime"] == {"min": 2000}
    assert read("external_id = 'none'") == [] and read("status = 'no such'") == [] and read("external_id = ''") == []
    plan = session.execute("EXPLAIN SELECT * FROM extraction_pipeline_runs").fetchall()
    assert any("POST /extpipes/list" in line and "POST /extpipes/runs/list" in line for (line,) in plan), plan
    plan = session.execute("EXPLAIN SELECT * FROM extraction_pipeline_runs WHERE external_id = 'p'").fetchall()
    assert any("POST /extpipes/runs/list" in line for (line,) in plan)
    assert not any("POST /extpipes/list" in line for (line,) in plan)


def test_reading_many_runs_page_by_page(session, cdf, pipeline, api):
    for number in range(1005):
        api.post("/extpipes/runs", {"externalId": "p", "status": "seen", "createdTime": number})
    assert session.execute("SELECT count(*), count(DISTINCT id) FROM extraction_pipeline_runs").fetchone() == (1005, 1005)


def test_own_runs_are_seen(session, cdf, pipeline):
    with session.transaction():
        session.execute("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen')")
        seen = session.execute("SELECT id, external_id, status FROM extraction_pipeline_runs WHERE external_id = 'p'")
        assert seen.fetchall() == [(None, "p", "seen")]
        assert session.execute("SELECT 1 FROM extraction_pipeline_runs WHERE external_id = 'q'").fetchall() == []


@pytest.mark.parametrize(
    ("statement", "capability"),
    [
        ("INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('p', 'seen')", "extractionRunsAcl:WRITE"),
        ("SELECT * FROM extraction_pipeline_runs WHERE external_id = 'p'", "extractionRunsAcl:READ"),
        ("SELECT * FROM extraction_pipeline_runs", "extractionPipelinesAcl:READ"),
        ("SELECT * FROM extraction_pipelines", "extractionPipelinesAcl:READ"),
        ("INSERT INTO extraction_pipelines (external_id, name, data_set_id) VALUES ('p', 'P', 5)", "extractionPipelinesAcl:WRITE"),
    ],
)
def test_capabilities_are_named(session, cdf, statement, capability):
    cdf.admin_post("faults", {"path": "/extpipes", "mode": "status", "status": 403, "times": 1})
    with refused("42501", capability):
        session.execute(statement)


def test_copy_and_names_of_cdf(session, cdf, scratch, pipeline):
    scratch.execute(
        "IMPORT FOREIGN SCHEMA cdf LIMIT TO (extraction_pipeline_runs) FROM SERVER cdf INTO scratch OPTIONS (naming 'camelCase')"
    )
    with session.cursor().copy('COPY scratch.extraction_pipeline_runs ("externalId", status) FROM STDIN') as copy:
        copy.write("p\tsuccess\np\tseen\n")
    assert sent(cdf) == [("p", "success", None), ("p", "seen", None)]
    with refused("22004", '"externalId"'):
        session.execute("INSERT INTO scratch.extraction_pipeline_runs (status) VALUES ('seen')")
