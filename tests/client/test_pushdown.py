"""Conditions that are sent to CDF select the same rows as PostgreSQL's own check."""

from __future__ import annotations

import pytest
from support import paths, requests


@pytest.fixture
def filled(session, cdf):
    """Items that differ in everything that conditions ask about, and an empty request log."""
    with session.transaction():
        session.execute("INSERT INTO data_sets (external_id, name, write_protected, metadata) VALUES"
                        " ('d1', 'One', false, '{\"k\": \"v\"}'), ('d2', 'Two', true, NULL), ('ø', 'Three', false, NULL)")
        session.execute("INSERT INTO labels (external_id, name, data_set_external_id) VALUES"
                        " ('l1', 'A', 'd1'), ('l2', 'B', NULL), ('l3', 'A', 'd2')")
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id, source, metadata, labels, data_set_external_id) VALUES"
            " ('root', 'Root', NULL, 'sap', '{\"k\": \"v\", \"n\": \"1\"}', '{l1}', 'd1'),"
            " ('rå%t', 'Root', NULL, '', '{}', '{l1,l2}', 'ø'),"
            " ('r_1', 'A', 'root', 'SAP', '{\"k\": \"\"}', '{l2,l3}', 'd2'),"
            " ('r21', 'B', 'root', NULL, '{\"k\": \"v\"}', NULL, NULL),"
            " ('R3', 'B', 'r21', 'sap', NULL, '{l1,l2,l3}', 'd1')"
        )
        session.execute("INSERT INTO assets (name, source) VALUES ('Nameless', 'sap')")
        session.execute(
            "INSERT INTO events (external_id, start_time, end_time, type, subtype, source, metadata, asset_external_ids,"
            " data_set_external_id) VALUES"
            " ('e1', '2024-01-01Z', '2024-01-02Z', 'stop', 'a', 'x', '{\"k\": \"v\"}', '{root}', 'd1'),"
            " ('e2', '2024-01-01 00:00:00.001Z', NULL, 'start', '', NULL, NULL, '{root,r21}', 'd2'),"
            " ('e_3', NULL, '1970-01-01Z', 'stop', NULL, 'x', '{\"k\": \"w\", \"é\": \"ß\"}', NULL, NULL),"
            " (NULL, '2030-06-01Z', '2031-01-01Z', NULL, 'a', '', '{}', '{R3}', 'd1')"
        )
        session.execute(
            "INSERT INTO timeseries (external_id, name, is_string, is_step, unit, unit_external_id, metadata,"
            " asset_external_id, data_set_external_id) VALUES"
            " ('t1', 'T', false, false, 'C', 'temperature:deg_c', '{\"k\": \"v\"}', 'root', 'd1'),"
            " ('t2', 'T', true, false, NULL, NULL, NULL, 'r21', 'd2'),"
            " ('t3', '', false, true, '', NULL, '{\"k\": \"\"}', NULL, NULL),"
            " ('u', NULL, true, true, 'bar', NULL, NULL, 'root', 'd1')"
        )
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES"
            " ('d', 't', 'k1', '{\"a\": 1}'), ('d', 't', 'ø/2', '{}'), ('d', 't', 'k 3', NULL), ('d', 'u', 'k1', '{}')"
        )
        session.execute(
            "INSERT INTO sequences (external_id, name, asset_external_id, metadata, columns, data_set_external_id) VALUES"
            " ('s1', 'S', 'root', '{\"k\": \"v\"}', '[{\"externalId\": \"a\", \"valueType\": \"STRING\"}]', 'd1'),"
            " ('s_2', '', 'r21', '{\"é\": \"ß\", \"q\\\\\": \"\\\"\"}', '[{\"externalId\": \"a\"}]', 'ø'),"
            " ('sa2', 's', NULL, '{\"k\": \"\"}', '[{\"externalId\": \"a\"}]', NULL),"
            " ('S''%\\', NULL, 'root', NULL, '[{\"externalId\": \"a\"}]', 'd2')"
        )
        session.execute("INSERT INTO sequences (name, columns) VALUES ('S', '[{\"externalId\": \"a\"}]')")
        session.execute(
            "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s1', 0, '{\"a\": \"x\"}'), ('s1', 1, '{\"a\": \"\"}'),"
            " ('s1', 9223372036854775807, '{\"a\": \"last\"}'), ('s_2', 0, '{\"a\": 1}'), ('s_2', 7, '{\"a\": null}'),"
            " ('S''%\\', 4294967296, '{\"a\": -1.5}')"
        )
        session.execute(
            "INSERT INTO files (external_id, name, directory, source, mime_type, metadata, asset_external_ids, labels,"
            " source_created_time, source_modified_time, data_set_external_id) VALUES"
            " ('f1', 'F', '/a', 'sap', 'text/plain', '{\"k\": \"v\"}', '{root}', '{l1}', '2024-01-01Z', '2024-01-01 00:00:00.001Z', 'd1'),"
            " ('f_2', 'f', NULL, 'SAP', '', '{\"k\": \"\"}', '{root,r21}', '{l1,l2}', '1970-01-01Z', NULL, 'ø'),"
            " ('fø2', 'F', '', '', NULL, NULL, NULL, NULL, NULL, '2030-01-01Z', NULL),"
            " ('F''\\\"', 'it''s \"é\" \\', '/a', NULL, 'TEXT/PLAIN', '{}', '{R3}', '{l2,l3}', '2024-01-01 00:00:00.002Z', '1970-01-01Z', 'd2'),"
            " (NULL, 'F', NULL, 'sap', 'text/plain', '{\"k\": \"v\", \"n\": \"1\"}', '{r_1}', '{l3}', '2024-01-01Z', '2024-01-01Z', 'd1')"
        )
        session.execute(
            "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type, start_time,"
            " end_time, confidence, labels, data_set_external_id) VALUES"
            " ('r1', 'root', 'asset', 't1', 'timeSeries', '2024-01-01Z', '2024-01-01 00:00:00.001Z', 0.5, '{l1}', 'd1'),"
            " ('r_2', 'Root', 'asset', 'nowhere', 'file', NULL, '1970-01-01Z', NULL, '{l1,l2}', 'ø'),"
            " ('R2', 'it''s \"é\" \\', 'event', 'T1', 'sequence', '1970-01-01Z', NULL, 0, NULL, NULL),"
            " ('r32', 'root', 'asset', 't1', 'timeSeries', '2024-01-01 00:00:00.002Z', '2031-01-01Z', 1, '{l3}', 'd2')"
        )
        for table, value in (("datapoints", "i"), ("string_datapoints", "i::text")):
            session.execute(
                f"INSERT INTO {table} (external_id, \"timestamp\", value) SELECT s, 'epoch'::timestamptz + i * interval '1 ms', {value}"
                " FROM unnest(%s::text[]) s, unnest('{-5,-1,0,1,2,86400000,4102358400000}'::bigint[]) i",
                (["t1", "t3"] if table == "datapoints" else ["t2", "u"],),
            )
    cdf.admin_delete("requests")
    return session


COMMON = [
    "external_id LIKE 'r%'", "external_id LIKE 'r\\_%'", "external_id LIKE '%1'", "external_id LIKE 'rå\\%t'",
    "external_id LIKE ''", "external_id LIKE NULL", "external_id ^@ 'r'", "starts_with(external_id, 'e')",
    "external_id LIKE 't_'", "external_id NOT LIKE 'r%'", "external_id IS NULL",
]
DATA_SET = [
    "data_set_external_id = 'd1'", "data_set_external_id IN ('d1', 'ø')", "data_set_external_id = 'nobody'",
    "data_set_external_id IN ('d1', 'nobody')", "data_set_external_id = ANY ('{}')", "data_set_external_id IS NULL",
    "data_set_id = (SELECT id FROM data_sets WHERE external_id = 'd2')", "data_set_id = -1", "data_set_id = 7::int2",
    "data_set_id = ANY (ARRAY(SELECT id FROM data_sets WHERE external_id LIKE 'd%'))", "data_set_id <> 5",
]
METADATA = [
    "metadata ->> 'k' = 'v'", "'v' = metadata ->> 'k'", "metadata ->> 'k' = ''", "metadata ->> 'none' = 'v'",
    "metadata @> '{\"k\": \"v\"}'", "metadata @> '{}'", "metadata @> '{\"k\": \"v\", \"n\": \"1\"}'",
    "metadata @> '{\"n\": 1}'", "metadata ->> 'é' = 'ß'", "metadata ->> 'k' <> 'v'", "metadata @> '[]'",
    "metadata ->> 'k' = NULL", "metadata ->> 'k' = 'v' AND metadata ->> 'n' = '1'",
]
TIMES = [
    "created_time > '2020-01-01Z'", "created_time < '2020-01-01Z'", "last_updated_time >= now() - interval '1 h'",
    "created_time = '2020-01-01Z'", "created_time > 'infinity'", "created_time < '-infinity'", "created_time >= date '2024-01-01'",
    "created_time < timestamp '2024-01-01'", "created_time BETWEEN '1900-01-01Z' AND '2200-01-01Z'", "created_time > date '5000000-01-01'",
]
CONDITIONS = {
    "assets": COMMON + DATA_SET + METADATA + TIMES + [
        "name = 'Root'", "name = ''", "name IN ('A', 'B', 'nobody', NULL)", "name = 'root'", "source = 'sap'", "source = ''",
        "source IS NULL", "source = repeat('x', 200)", "name = 'Root' AND source = 'sap'", "name = 'A' OR source = 'sap'",
        "name IN ('A', 'B') AND source IN ('sap', 'SAP')", "name = 'B' AND name = (SELECT 'B')",
        "parent_external_id = 'root'", "parent_external_id IN ('root', 'r21')", "parent_external_id = 'nobody'",
        "parent_external_id IN ('root', 'nobody')", "parent_external_id IS NULL", "parent_id IS NULL", "parent_id IS NOT NULL",
        "parent_id IS NULL AND parent_external_id IS NULL", "parent_id = (SELECT id FROM assets WHERE external_id = 'r21')",
        "labels @> '{l1}'", "labels @> '{l1,l2}'", "labels && '{l2,l3}'", "labels @> '{}'", "labels && '{}'",
        "labels @> '{nobody}'", "labels && '{nobody,l1}'", "'l2' = ANY (labels)", "labels <@ '{l1,l2}'", "labels @> '{l1,NULL}'",
        "labels = '{l1}'", "labels @> '{l1}' AND labels && '{l3}'", "'{l1}' <@ labels", "name COLLATE \"C\" = 'Root'",
    ],
    "events": COMMON + DATA_SET + METADATA + TIMES + [
        "type = 'stop'", "type IN ('stop', 'start')", "type IS NULL", "subtype = 'a'", "subtype = ''", "source = 'x'", "source = ''",
        "type = 'stop' AND subtype = 'a'", "end_time IS NULL", "end_time IS NOT NULL", "start_time IS NULL",
        "start_time = '2024-01-01Z'", "start_time > '2024-01-01Z'", "start_time >= '2024-01-01 00:00:00.0005Z'",
        "start_time < '2024-01-01 00:00:00.0005Z'", "start_time <= '2024-01-01Z'", "start_time < '2024-01-01 00:00:00.001Z'",
        "start_time = '2024-01-01 00:00:00.0005Z'", "end_time <= '1970-01-01Z'", "end_time < '1970-01-01Z'", "end_time > '1969-01-01Z'",
        "start_time >= date '2024-01-01' AND start_time < date '2024-01-02'", "start_time <= timestamp '2024-01-01'",
        "end_time IS NULL AND end_time > '2024-01-01Z'", "start_time = date '2024-01-01'", "timestamp '2024-01-01' < start_time",
        "asset_external_ids @> '{root}'", "asset_external_ids @> '{root,r21}'", "asset_external_ids && '{r21,R3}'",
        "asset_external_ids && '{nobody}'", "'root' = ANY (asset_external_ids)", "asset_external_ids IS NULL",
        "asset_ids @> ARRAY(SELECT id FROM assets WHERE external_id = 'root')",
        "asset_ids && ARRAY(SELECT id FROM assets)", "(SELECT id FROM assets WHERE external_id = 'r21') = ANY (asset_ids)",
        "asset_ids @> '{-1}'", "asset_ids @> '{}'", "asset_ids && '{}'", "5::int4 = ANY (asset_ids)",
    ],
    "timeseries": COMMON + DATA_SET + METADATA + TIMES + [
        "name = 'T'", "name = ''", "name IN ('T', '')", "is_string", "NOT is_string", "is_string = true", "is_string IS TRUE",
        "is_string IS NOT TRUE", "is_step IS FALSE", "is_string AND NOT is_step", "is_string = is_step", "is_step = (SELECT true)",
        "unit = 'C'", "unit IN ('C', 'bar')", "unit = ''", "unit_external_id = 'temperature:deg_c'",
        "asset_external_id = 'root'", "asset_external_id IN ('root', 'r21', 'nobody')", "asset_external_id IS NULL",
        "asset_id = (SELECT id FROM assets WHERE external_id = 'root')", "asset_id IS NULL", "asset_id > 5",
    ],
    "data_sets": COMMON + METADATA + TIMES + ["write_protected", "NOT write_protected", "name = 'One'"],
    "labels": COMMON + DATA_SET + TIMES[:2] + ["name = 'A'", "name IN ('A', 'B')", "name = ''"],
    "raw_rows": [
        "db_name = 'd'", "db_name = 'd' AND table_name = 't'", "key = 'k1'", "key IN ('k1', 'ø/2', 'nobody')", "key = ''",
        "db_name = 'd' AND table_name = 't' AND key IN ('k 3', 'k1', 'k1', '')", "key = ANY ('{}')",
        "key = ANY (ARRAY(SELECT 'k' || i FROM generate_series(1, 50) i))", "last_updated_time > '2020-01-01Z'",
        "last_updated_time < '2020-01-01Z'", "last_updated_time <= now() AND key = 'k1'", "last_updated_time = '2020-01-01Z'",
    ],
}


def many(before: str, count: int) -> str:
    """More texts than one request takes."""
    return f"ARRAY(SELECT 'x' || i FROM generate_series(1, {count}) i) || '{before}'::text[]"


def times(column: str) -> list[str]:
    """Conditions on a time that CDF has in whole milliseconds, around those that the rows have."""
    edges = ["1970-01-01", "2024-01-01", "2024-01-01 00:00:00.001", "2024-01-01 00:00:00.0005", "2024-01-01 00:00:00.001001", "2024-01-01 00:00:00.000999"]
    return [
        *(f"{column} {operator} '{edge}Z'" for operator in ("=", "<", "<=", ">", ">=") for edge in edges),
        f"{column} IS NULL", f"{column} IS NOT NULL", f"{column} <> '2024-01-01Z'", f"{column} = NULL",
        f"{column} BETWEEN '2024-01-01Z' AND '2024-01-01 00:00:00.001Z'", f"{column} > '2024-01-01Z' AND {column} < '2024-01-01 00:00:00.001Z'",
        f"{column} >= date '2024-01-01'", f"timestamp '2024-01-01 05:30' >= {column}", f"{column} < 'infinity'", f"{column} > '-infinity'",
    ]


KEYS = [
    "external_id = 'r1'", "external_id IN ('s1', 'S1', '', 'f_2', 'r_2', NULL)", f"external_id = ANY ({many('{s1,f1,r1}', 2500)})",
    "external_id = E'S''%\\\\'", "external_id = 'F''\\\"'", "external_id = ANY ('{}')", "external_id = repeat('x', 300)",
    "external_id > 'S'", "external_id ^@ 'S''%\\'", "external_id LIKE '%2'", "external_id LIKE 'r1'", "external_id LIKE '_1'", "external_id LIKE 'F%'",
]
LABELS = [
    "labels @> '{l1}'", "labels @> '{l1,l2}'", "labels && '{l2,l3}'", "labels @> '{}'", "labels && '{}'", "labels @> '{nobody}'",
    "labels && '{nobody,l1}'", "'l2' = ANY (labels)", "labels IS NULL", f"labels && ({many('{l2}', 20)})", f"labels @> ({many('{l2}', 20)})",
    "labels @> '{l1,NULL}'", "labels && '{l1,NULL}'", "'L1' = ANY (labels)", "labels @> '{l1}' AND labels @> '{l2}'",
]
DATA_SETS = [f"data_set_external_id = ANY ({many('{d1,ø}', 250)})", f"data_set_external_id = ANY ({many('{d1}', 1500)})", "data_set_external_id = 'D1'"]
CONDITIONS |= {
    "sequences": COMMON + KEYS + DATA_SET + DATA_SETS + METADATA + TIMES + [
        "name = 'S'", "name = 's'", "name = ''", "name IS NULL", "name IN ('S', '', 'nobody', NULL)", f"name = ANY ({many('{S,s}', 20)})",
        "name = repeat('x', 300)", "name <> 'S'", "name LIKE 'S%'", "metadata ->> 'q\\' = '\"'", "metadata @> '{\"q\\\\\": \"\\\"\"}'",
        "asset_id = (SELECT id FROM assets WHERE external_id = 'root')", "asset_id IS NULL", "asset_id IS NOT NULL", "asset_id = -1",
        "asset_id = ANY (ARRAY(SELECT id FROM assets))", "asset_id = ANY (ARRAY(SELECT id FROM assets) || ARRAY(SELECT generate_series(1, 250)::bigint))",
        "asset_id = ANY ('{}')", "asset_id = ANY ('{NULL}')", "asset_external_id = 'root'", "asset_external_id IN ('r21', 'nobody')",
        "name = 'S' AND asset_id IS NOT NULL AND data_set_external_id = 'd1'", "NOT (name = 'S')", "name IN ('S', 's') AND data_set_external_id IN ('d1', 'ø')",
        "id = (SELECT max(id) FROM sequences)", "id = 0", "id IN (SELECT id FROM sequences WHERE name = 'S')",
    ],
    "files": COMMON + KEYS + DATA_SET + DATA_SETS + METADATA + TIMES + LABELS + times("source_created_time") + times("source_modified_time") + [
        "name = 'F'", "name = 'f'", "name = ''", "name IN ('F', 'f', NULL)", f"name = ANY ({many('{F}', 20)})", "name = 'it''s \"é\" \\'",
        "name LIKE 'it''s%'", "source = 'sap'", "source = 'SAP'", "source = ''", "source IS NULL", "source IN ('sap', 'SAP')", "source = repeat('x', 200)",
        "mime_type = 'text/plain'", "mime_type = 'TEXT/PLAIN'", "mime_type = ''", "mime_type IS NULL", "mime_type IN ('', 'text/plain')",
        "directory = '/a'", "directory = ''", "directory IS NULL", "uploaded", "NOT uploaded", "uploaded IS NULL",
        "asset_external_ids @> '{root}'", "asset_external_ids @> '{root,r21}'", "asset_external_ids && '{r21,R3,nobody}'",
        "asset_external_ids && '{nobody}'", "'root' = ANY (asset_external_ids)", "asset_external_ids IS NULL", "asset_external_ids @> '{}'",
        f"asset_external_ids && ({many('{R3}', 150)})", "asset_ids && ARRAY(SELECT id FROM assets)", "asset_ids @> '{-1}'", "asset_ids && '{}'",
        "asset_ids @> ARRAY(SELECT id FROM assets WHERE external_id IN ('root', 'r21'))", "(SELECT id FROM assets WHERE external_id = 'r21') = ANY (asset_ids)",
        "asset_ids && (ARRAY(SELECT id FROM assets) || ARRAY(SELECT generate_series(1, 250)::bigint))", "asset_ids IS NOT NULL",
        "name = 'F' AND source = 'sap' AND mime_type = 'text/plain'", "name IN ('F', 'f') AND source IN ('sap', 'SAP', '')",
    ],
    "relationships": COMMON + KEYS + DATA_SET + DATA_SETS + TIMES + LABELS + times("start_time") + times("end_time") + [
        "source_external_id = 'root'", "source_external_id = 'Root'", "source_external_id = ''", "source_external_id = 'it''s \"é\" \\'",
        "source_external_id IN ('root', 'Root', 'nobody', NULL)", f"source_external_id = ANY ({many('{root}', 2500)})", "source_external_id = ANY ('{}')",
        "source_external_id = repeat('x', 300)", "source_external_id IS NULL", "target_external_id = 't1'", "target_external_id = 'T1'",
        "target_external_id IN ('nowhere', 'T1')", f"target_external_id = ANY ({many('{t1,T1}', 1500)})", "target_external_id <> 't1'",
        f"source_external_id = ANY ({many('{root}', 1500)}) AND target_external_id = ANY ({many('{t1}', 1500)})",
        "source_type = 'asset'", "target_type IN ('file', 'sequence')", "confidence = 0.5", "confidence >= 0.5", "confidence IS NULL",
        "source_external_id = 'root' AND target_external_id = 't1' AND labels @> '{l3}'", "source_external_id LIKE 'r%'",
        "start_time IS NOT NULL AND end_time > start_time",
    ],
    "sequence_rows": [
        "external_id = 's1'", "external_id = 'S1'", "external_id IN ('s1', 's_2', 'nobody', NULL)", f"external_id = ANY ({many('{s1}', 5)})",
        "external_id = ANY ('{}')", "external_id = E'S''%\\\\'", "external_id LIKE 's\\_%'", "external_id IS NULL", "external_id = ''", "external_id = repeat('x', 300)",
        "id = (SELECT id FROM sequences WHERE external_id = 's_2')", "id = -1", "id = ANY (ARRAY(SELECT id FROM sequences))",
        "row_number = 0", "row_number = 7", "row_number = -1", "row_number < 0", "row_number <= 0", "row_number < 1", "row_number > 0", "row_number >= 7",
        "row_number > 9223372036854775806", "row_number >= 9223372036854775807", "row_number > 9223372036854775807", "row_number = 9223372036854775807",
        "row_number < 9223372036854775807", "row_number <= 9223372036854775807", "row_number < -9223372036854775808", "row_number > -9223372036854775808",
        "row_number = 4294967296", "row_number = 1::int2", "row_number BETWEEN 1 AND 7", "row_number > 7 AND row_number < 7", "row_number IN (0, 7)",
        "5 < row_number", "row_number <> 0", "row_number = NULL", "external_id = 's1' AND row_number = 1", "external_id IN ('s1', 's_2') AND row_number < 7",
        "id = (SELECT id FROM sequences WHERE external_id = 's1') AND external_id = 's_2'", "columns ->> 'a' = ''", "columns ->> 'a' IS NULL",
        "columns @> '{\"a\": 1}'",
    ],
    "datapoints": [
        "external_id = 't1'", "external_id = 'T1'", "external_id = 't2'", "external_id IN ('t1', 't3', 'nobody', NULL)", f"external_id = ANY ({many('{t1}', 250)})",
        "external_id = ''", "external_id = repeat('x', 300)", "instance_space = '' AND instance_external_id = 'b'",
        "instance_space = 'a' AND instance_external_id = repeat('x', 300)", "instance_space = 'a' AND instance_external_id = ''",
        "external_id LIKE 't%'", "id = (SELECT id FROM timeseries WHERE external_id = 't3')", "id = -1",
        "id = ANY (ARRAY(SELECT id FROM timeseries WHERE NOT is_string))", "value > 1", "value = 0", "instance_space = 'a'", "instance_space IS NULL",
        "instance_space = 'a' AND instance_external_id = 'b'", "external_id = 't1' AND id = (SELECT id FROM timeseries WHERE external_id = 't3')",
        *times('"timestamp"'), *(f"external_id = 't1' AND {condition}" for condition in times('"timestamp"')),
        *(f"\"timestamp\" {operator} '1970-01-01 00:00:00.00{edge}Z'" for operator in ("=", "<", "<=", ">", ">=") for edge in ("1", "1001", "0999", "2")),
        "\"timestamp\" < '1970-01-01Z'", "\"timestamp\" = '1969-12-31 23:59:59.999Z'", "\"timestamp\" >= '2099-12-31Z'",
    ],
}
for table in ("assets", "events", "timeseries", "data_sets", "labels"):
    CONDITIONS[table] += KEYS
for table in ("assets", "events", "timeseries", "labels"):
    CONDITIONS[table] += DATA_SETS
CONDITIONS["events"] += times("start_time") + times("end_time")
CONDITIONS["assets"] += LABELS + [f"parent_external_id = ANY ({many('{root}', 250)})", f"name = ANY ({many('{Root}', 20)})", f"source = ANY ({many('{sap}', 20)})"]
CONDITIONS["timeseries"] += [f"asset_external_id = ANY ({many('{root}', 250)})", f"unit = ANY ({many('{C}', 20)})", "unit = repeat('x', 100)"]
CONDITIONS["string_datapoints"] = [
    condition.replace("t1", "t2").replace("t3", "u") for condition in CONDITIONS["datapoints"] if not condition.startswith("value")
] + ["value = '0'", "value IS NULL"]
KEY = {
    "raw_rows": "table_name || ' ' || key",
    "labels": "external_id",
    "relationships": "external_id",
    "sequence_rows": "id || ' ' || row_number",
    "datapoints": "id || ' ' || extract(epoch FROM \"timestamp\")",
    "string_datapoints": "id || ' ' || extract(epoch FROM \"timestamp\")",
}


def differences(session, table: str, key: str, conditions: list[str]) -> list[tuple]:
    """Conditions that leave other rows when they are pushed down, with or without a limit, than by PostgreSQL's own check."""
    found = []
    for condition in conditions:
        pushed = session.execute(f"SELECT {key} FROM {table} WHERE {condition} ORDER BY 1").fetchall()
        local = session.execute(f"SELECT {key} FROM (SELECT * FROM {table} OFFSET 0) s WHERE {condition} ORDER BY 1").fetchall()
        limited = session.execute(f"SELECT {key} FROM {table} WHERE {condition} LIMIT 2").fetchall()
        if pushed != local or len(limited) != min(2, len(local)) or not set(limited) <= set(local):
            found.append((condition, pushed, local, limited))
    return found


@pytest.mark.parametrize("table", CONDITIONS)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_the_same_rows_either_way(filled, table, zone):
    filled.execute(f"SET TimeZone = '{zone}'")
    assert differences(filled, table, KEY.get(table, "id::text"), CONDITIONS[table]) == []


OWN_CHANGES = {
    "assets": [
        "UPDATE assets SET source = 'sap', labels = '{l1,l2}', metadata = '{\"k\": \"v\"}' WHERE external_id = 'r21'",
        "UPDATE assets SET name = 'A', source = NULL, data_set_external_id = 'ø' WHERE external_id = 'root'",
        "DELETE FROM assets WHERE external_id = 'r_1'",
        "INSERT INTO assets (external_id, name, source, parent_external_id, labels) VALUES ('r9', 'Root', 'sap', 'root', '{l3}')",
    ],
    "events": [
        "UPDATE events SET type = 'stop', end_time = '2024-01-01 00:00:00.001Z', asset_external_ids = '{root}' WHERE external_id = 'e2'",
        "UPDATE events SET type = NULL, start_time = NULL, metadata = NULL WHERE external_id = 'e1'",
        "DELETE FROM events WHERE external_id = 'e_3'",
        "INSERT INTO events (external_id, type, start_time, metadata) VALUES ('e9', 'stop', '2024-01-01Z', '{\"k\": \"v\"}')",
    ],
    "timeseries": [
        "UPDATE timeseries SET name = 'T', unit = 'C', asset_external_id = 'root' WHERE external_id = 't3'",
        "UPDATE timeseries SET name = NULL, unit = 'bar', is_step = true WHERE external_id = 't1'",
        "DELETE FROM timeseries WHERE external_id = 'u'",
        "INSERT INTO timeseries (external_id, name, is_string, is_step, data_set_external_id) VALUES ('t9', 'T', true, false, 'd1')",
    ],
    "sequences": [
        "UPDATE sequences SET name = 'S', metadata = '{\"k\": \"v\"}', data_set_external_id = 'd1' WHERE external_id = 's_2'",
        "UPDATE sequences SET name = 's', asset_external_id = NULL WHERE external_id = 's1'",
        "DELETE FROM sequences WHERE external_id = 'sa2'",
        "INSERT INTO sequences (external_id, name, columns) VALUES ('s9', 'S', '[{\"externalId\": \"a\"}]')",
    ],
    "files": [
        "UPDATE files SET source = 'sap', mime_type = 'text/plain', labels = '{l1}', source_created_time = '2024-01-01Z' WHERE external_id = 'fø2'",
        "UPDATE files SET source = NULL, labels = NULL, source_created_time = NULL, asset_external_ids = NULL WHERE external_id = 'f1'",
        "DELETE FROM files WHERE external_id = 'f_2'",
        "INSERT INTO files (external_id, name, source, data_set_external_id) VALUES ('f9', 'F', 'sap', 'ø')",
    ],
    "relationships": [
        "UPDATE relationships SET source_external_id = 'root', labels = '{l1}', start_time = '2024-01-01Z' WHERE external_id = 'R2'",
        "UPDATE relationships SET source_external_id = 'Root', start_time = NULL, labels = NULL WHERE external_id = 'r1'",
        "DELETE FROM relationships WHERE external_id = 'r32'",
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type) VALUES ('r9', 'root', 'asset', 't1', 'file')",
    ],
    "sequence_rows": [
        "UPDATE sequence_rows SET columns = '{\"a\": null}' WHERE external_id = 's1' AND row_number = 0",
        "DELETE FROM sequence_rows WHERE external_id = 's_2' AND row_number = 7",
        "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s1', 7, '{\"a\": \"7\"}'), ('s_2', 0, '{\"a\": 5}')",
    ],
}


@pytest.mark.parametrize("table", OWN_CHANGES)
def test_the_same_rows_in_a_transaction_either_way(filled, table):
    key = "concat_ws(' ', external_id, row_number)" if table == "sequence_rows" else "coalesce(external_id, id::text)"
    key = "external_id" if table == "relationships" else key
    with filled.transaction(force_rollback=True):
        for change in OWN_CHANGES[table]:
            filled.execute(change)
        assert differences(filled, table, key, CONDITIONS[table]) == []


@pytest.mark.parametrize(
    ("table", "condition", "filters"),
    [
        ("assets", "name = 'Root' AND source = 'sap'", [{"name": "Root", "source": "sap"}]),
        ("assets", "name IN ('A', 'B')", [{"name": "A"}, {"name": "B"}]),
        ("assets", "external_id LIKE 'r\\_%'", [{"externalIdPrefix": "r_"}]),
        ("assets", "starts_with(external_id, 'ro')", [{"externalIdPrefix": "ro"}]),
        ("assets", "external_id ^@ 'ro'", [{"externalIdPrefix": "ro"}]),
        ("assets", "metadata ->> 'k' = 'v' AND metadata @> '{\"n\": \"1\"}'", [{"metadata": {"k": "v", "n": "1"}}]),
        ("assets", "labels @> '{l1,l2}'", [{"labels": {"containsAll": [{"externalId": "l1"}, {"externalId": "l2"}]}}]),
        ("assets", "labels && '{l1,l2}'", [{"labels": {"containsAny": [{"externalId": "l1"}, {"externalId": "l2"}]}}]),
        ("assets", "'l1' = ANY (labels)", [{"labels": {"containsAll": [{"externalId": "l1"}]}}]),
        ("assets", "parent_external_id IN ('root', 'r21')", [{"parentExternalIds": ["root", "r21"]}]),
        ("assets", "parent_id IN (5, 6)", [{"parentIds": [5, 6]}]),
        ("assets", "parent_id IS NULL AND parent_external_id IS NULL", [{"root": True}]),
        ("assets", "parent_id IS NOT NULL", [{"root": False}]),
        ("assets", "data_set_external_id IN ('d1', 'd2')", [{"dataSetIds": [{"externalId": "d1"}, {"externalId": "d2"}]}]),
        ("assets", "data_set_id = 5", [{"dataSetIds": [{"id": 5}]}]),
        ("events", "end_time IS NULL", [{"endTime": {"isNull": True}}]),
        ("events", "start_time > '1970-01-01 00:00:00.005Z' AND start_time < '1970-01-01 00:00:01Z'", [{"startTime": {"min": 6, "max": 999}}]),
        ("events", "created_time <= '1970-01-01 00:00:01Z'", [{"createdTime": {"max": 1000}}]),
        ("events", "last_updated_time >= date '1970-01-02'", [{"lastUpdatedTime": {"min": 86_400_000}}]),
        ("events", "asset_ids && '{5,6}'", [{"assetIds": [5, 6]}]),
        ("events", "asset_ids @> '{5,6}'", [{"assetIds": [5]}]),
        ("events", "5 = ANY (asset_ids)", [{"assetIds": [5]}]),
        ("events", "asset_external_ids && '{root,r21}'", [{"assetExternalIds": ["root", "r21"]}]),
        ("events", "type = 'stop' AND subtype = 'a'", [{"type": "stop", "subtype": "a"}]),
        ("timeseries", "is_string AND NOT is_step", [{"isString": True, "isStep": False}]),
        ("timeseries", "unit = 'C' AND unit_external_id = 'u'", [{"unit": "C", "unitExternalId": "u"}]),
        ("timeseries", "asset_id = 5", [{"assetIds": [5]}]),
        ("data_sets", "write_protected", [{"writeProtected": True}]),
        ("labels", "name = 'A'", [{"name": "A"}]),
    ],
)
def test_what_goes_to_cdf(filled, cdf, table, condition, filters):
    filled.execute(f"SELECT 1 FROM {table} WHERE {condition}").fetchall()
    path = "/datasets/list" if table == "data_sets" else f"/{table}/list"
    assert [request["body"].get("filter") for request in requests(cdf, path)] == filters


def test_raw_rows(filled, cdf):
    one_table = "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't'"
    assert len(filled.execute(f"{one_table} AND key IN ('k1', 'k 3', 'nobody')").fetchall()) == 2
    assert sorted(path.rsplit("/", 1)[1] for path in paths(cdf)) == ["k%203", "k1", "nobody"]
    cdf.admin_delete("requests")
    filled.execute(f"{one_table} AND last_updated_time > '1970-01-01 00:00:00.005Z' AND last_updated_time <= '2000-01-01Z'").fetchall()
    (request,) = requests(cdf)
    assert "minLastUpdatedTime=5" in request["path"] and "maxLastUpdatedTime=946684800000" in request["path"]


def test_a_name_that_cdf_does_not_know_is_no_error(filled, cdf):
    fault = {"path": "/events/list", "mode": "status", "status": 400, "times": 1,
             "body": {"error": {"code": 400, "message": "Invalid dataSetIds: nobody"}}}
    cdf.admin_post("faults", fault)
    query = "SELECT external_id FROM events WHERE data_set_external_id = ANY (%s) ORDER BY 1"
    assert filled.execute(query, (["nobody"],)).fetchall() == []
    assert paths(cdf) == ["/events/list", "/datasets/byids"]
    cdf.admin_delete("faults")
    cdf.admin_post("faults", fault)
    assert filled.execute(query, (["d2", "nobody"],)).fetchall() == [("e2",)]


def test_joins_ask_by_key(filled, cdf):
    filled.execute("CREATE TEMP TABLE wanted (key text)")
    filled.execute("INSERT INTO wanted VALUES ('t1'), ('u'), ('nobody')")
    filled.execute("ANALYZE wanted")
    query = "SELECT t.external_id FROM wanted w JOIN timeseries t ON t.external_id = w.key"
    assert sorted(filled.execute(query).fetchall()) == [("t1",), ("u",)]
    assert set(paths(cdf)) == {"/timeseries/byids"}
    cdf.admin_delete("requests")
    filled.execute("INSERT INTO wanted SELECT 'x' || i FROM generate_series(1, 5000) i")
    filled.execute("ANALYZE wanted")
    assert sorted(filled.execute(query).fetchall()) == [("t1",), ("u",)]
    assert paths(cdf) == ["/timeseries/byids"] * 6
    # More than there are series, probably: these are read once.
    cdf.admin_delete("requests")
    filled.execute("INSERT INTO wanted SELECT 'y' || i FROM generate_series(1, 400000) i")
    filled.execute("ANALYZE wanted")
    assert sorted(filled.execute(query).fetchall()) == [("t1",), ("u",)]
    assert paths(cdf) == ["/timeseries/list"]


def test_explain(filled, cdf):
    def node(query, options=""):
        (plan,) = filled.execute(f"EXPLAIN (FORMAT json, COSTS off{options}) {query}").fetchone()[0]
        plan = plan["Plan"]
        return plan if "CDF Requests" in plan else plan["Plans"][0]

    query = "SELECT external_id FROM events WHERE metadata ->> 'k' = 'v' AND end_time IS NOT NULL AND description IS NULL"
    plan = node(query)
    assert plan["CDF Filter"] == "(end_time IS NOT NULL) AND ((metadata ->> 'k'::text) = 'v'::text)"
    assert "CDF Requests Made" not in plan and requests(cdf) == []
    plan = node(query, ", ANALYZE, TIMING off")
    assert (plan["CDF Requests Made"], plan["CDF Pages Received"], plan["CDF Rows Received"]) == (1, 1, 1)
    assert "CDF Limit" in node("SELECT 1 FROM events WHERE external_id LIKE 'e%' LIMIT 3")
    assert "CDF Limit" not in node("SELECT 1 FROM events WHERE external_id LIKE 'e_' LIMIT 3")
    assert node("SELECT 1 FROM assets WHERE name = 'A' AND external_id = 'a'")["CDF Filter"] == "(external_id = 'a'::text)"


def test_prepared_statements(filled):
    for at in range(8):
        unit = ["C", "bar", None][at % 3]
        rows = filled.execute("SELECT external_id FROM timeseries WHERE unit = %s", (unit,), prepare=True).fetchall()
        assert rows == {"C": [("t1",)], "bar": [("u",)], None: []}[unit]
