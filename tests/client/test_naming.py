"""Tables whose columns have CDF's own names: naming 'camelCase' in IMPORT and in registration."""

from __future__ import annotations

import pytest
from psycopg import errors
from sites import make_registrar
from support import dump, names, points, refused, requests, stored
from test_import import types
from test_views import create_view

ASSETS = [
    "id", "externalId", "name", "parentId", "parentExternalId", "description", "metadata", "source", "dataSetId",
    "dataSetExternalId", "labels", "geoLocation", "rootId", "createdTime", "lastUpdatedTime",
]  # fmt: skip


@pytest.fixture
def camel(session, scratch):
    """The registered role in a schema whose tables have CDF's own names."""
    scratch.execute("IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO scratch OPTIONS (naming 'camelCase')")
    session.execute("SET search_path = scratch")
    return session


# What they are called.


def test_names_of_the_columns(camel, scratch):
    assert list(types(scratch, "assets")) == ASSETS
    assert "isString" in types(scratch, "timeseries") and "assetExternalIds" in types(scratch, "events")
    assert list(types(scratch, "datapoints")) == [
        "id", "externalId", "instanceSpace", "instanceExternalId", "timestamp", "value", "statusCode", "statusSymbol",
    ]  # fmt: skip
    assert list(types(scratch, "raw_rows")) == ["dbName", "tableName", "key", "columns", "lastUpdatedTime"]
    assert "rowNumber" in types(scratch, "sequence_rows") and "sourceExternalId" in types(scratch, "relationships")
    # A column that is called as CDF calls it needs no option that says so.
    options = scratch.execute("SELECT count(*) FROM information_schema.column_options WHERE table_schema = 'scratch'")
    assert options.fetchone() == (0,)


def test_naming_is_the_only_option(scratch):
    statement = "IMPORT FOREIGN SCHEMA cdf LIMIT TO (assets) FROM SERVER cdf INTO scratch OPTIONS ({})"
    with refused("HV00D", "nam", "naming"):
        scratch.execute(statement.format("nam 'camelCase'"))
    with refused("HV00J", "camelcase", "snake_case, camelCase"):
        scratch.execute(statement.format("naming 'camelcase'"))
    scratch.execute(statement.format("naming 'snake_case'"))
    assert "external_id" in types(scratch, "assets")


# Statements.


def test_rows_are_written_read_changed_and_deleted(camel, cdf, api):
    api.create("datasets", "set")
    camel.execute(
        'INSERT INTO assets ("externalId", name, "parentExternalId", "dataSetExternalId", "geoLocation") VALUES'
        " ('root', 'Root', NULL, 'set', NULL),"
        """ ('child', 'Child', 'root', NULL, '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}')"""
    )
    assert stored(cdf, "assets", "child")["parentExternalId"] == "root"
    assert stored(cdf, "assets", "root")["dataSetId"] == dump(cdf, "datasets")[0]["id"]
    rows = camel.execute(
        'SELECT "externalId", "parentExternalId", "dataSetExternalId", "rootId" IS NULL FROM assets ORDER BY 1'
    ).fetchall()
    assert rows == [("child", "root", None, False), ("root", None, "set", False)]
    assert camel.execute("""UPDATE assets SET source = 's' WHERE "externalId" = 'child'""").rowcount == 1
    assert stored(cdf, "assets", "child")["source"] == "s"
    returned = camel.execute("""INSERT INTO assets ("externalId", name) VALUES ('more', 'm') RETURNING "externalId", name""")
    assert returned.fetchone() == ("more", "m")
    assert camel.execute("""DELETE FROM assets WHERE "externalId" IN ('child', 'more')""").rowcount == 2
    assert names(cdf, "assets") == ["root"]


@pytest.mark.parametrize("columns", ['("externalId", name, "isString", "isStep")', "everything"])
def test_copy(camel, cdf, columns):
    if columns == "everything":
        order = camel.execute("SELECT * FROM timeseries LIMIT 0").description
        row = {"externalId": "s", "name": "n", "isString": "t", "isStep": "f"}
        options, columns = "(FORMAT csv, HEADER)", ""
        text = ",".join(column.name for column in order) + "\n"
        text += ",".join(row.get(column.name, "") for column in order) + "\n"
    else:
        options, text = "", "s\tn\tt\tf\n"
    with camel.cursor().copy(f"COPY timeseries {columns} FROM STDIN {options}") as copy:
        copy.write(text)
    found = stored(cdf, "timeseries", "s")
    assert (found["name"], found["isString"], found["isStep"]) == ("n", True, False)


def test_points_and_references_of_one_transaction(camel, cdf):
    with camel.transaction():
        camel.execute("""INSERT INTO data_sets ("externalId", name) VALUES ('set', 'Set')""")
        camel.execute("""INSERT INTO assets ("externalId", name) VALUES ('a', 'A')""")
        camel.execute(
            'INSERT INTO timeseries ("externalId", "assetExternalId", "dataSetExternalId", unit)'
            " VALUES ('s', 'a', 'set', 'C')"
        )
        camel.execute(
            'INSERT INTO datapoints ("externalId", "timestamp", value, "statusCode") VALUES'
            " ('s', '2024-01-01', 1.5, NULL), ('s', '2024-01-02', 2, 1073741824)"
        )
        camel.execute("""INSERT INTO events ("externalId", "startTime", "assetExternalIds") VALUES ('e', '2024-01-01', '{a}')""")
        camel.execute("""INSERT INTO raw_rows ("dbName", "tableName", key, columns) VALUES ('d', 't', 'k', '{"a": 1}')""")
        seen = camel.execute("""SELECT "assetExternalId" FROM timeseries WHERE "externalId" = 's'""").fetchall()
        assert seen == [("a",)]
    asset = stored(cdf, "assets", "a")["id"]
    assert stored(cdf, "timeseries", "s")["assetId"] == asset and stored(cdf, "events", "e")["assetIds"] == [asset]
    assert [value for _, value, _ in points(cdf, "s")] == [1.5, 2]
    assert camel.execute("""SELECT "assetExternalIds" FROM events WHERE "externalId" = 'e'""").fetchall() == [(["a"],)]
    read = camel.execute("""SELECT value, "statusCode" FROM datapoints WHERE "externalId" = 's' ORDER BY "timestamp" """)
    assert read.fetchall()[1] == (2.0, 1073741824)


def test_conditions_are_pushed_down(camel, cdf, api):
    api.create("assets", "a1", "b1")
    before = len(requests(cdf))
    camel.execute("""SELECT name FROM assets WHERE "externalId" = 'a1'""").fetchall()
    camel.execute("""SELECT name FROM assets WHERE "externalId" LIKE 'b%'""").fetchall()
    camel.execute("""SELECT name FROM assets WHERE "createdTime" > '2020-01-01'""").fetchall()
    by_key, by_prefix, by_time = requests(cdf)[before:]
    assert by_key["path"].endswith("/assets/byids")
    assert by_prefix["body"]["filter"] == {"externalIdPrefix": "b"}
    assert "min" in by_time["body"]["filter"]["createdTime"]
    plan = camel.execute("""EXPLAIN SELECT 1 FROM assets WHERE "externalId" = 'a1'""").fetchall()
    assert any('"externalId"' in line for (line,) in plan)


def test_on_conflict_names_the_columns(camel, cdf, api):
    api.create("assets", "a", description="old", source="s")
    camel.execute(
        """INSERT INTO assets ("externalId", name, description) VALUES ('a', 'a', 'new'), ('b', 'b', 'first')"""
        ' ON CONFLICT ("externalId") DO UPDATE SET description = EXCLUDED.description'
    )
    assert stored(cdf, "assets", "a")["description"] == "new" and stored(cdf, "assets", "a")["source"] == "s"
    done = camel.execute(
        """INSERT INTO assets ("externalId", name) VALUES ('a', 'x'), ('c', 'c') ON CONFLICT ("externalId") DO NOTHING"""
    )
    assert done.rowcount == 1 and names(cdf, "assets") == ["a", "b", "c"]
    camel.execute(
        """INSERT INTO datapoints ("externalId", "timestamp", value) SELECT 's', '2024-01-01', 1 WHERE false"""
        ' ON CONFLICT ("externalId", "timestamp") DO NOTHING'
    )


def test_constraints(camel, scratch, cdf):
    scratch.execute('ALTER FOREIGN TABLE scratch.events ALTER "externalId" SET NOT NULL')
    scratch.execute('ALTER FOREIGN TABLE scratch.events ADD CONSTRAINT ordered CHECK ("endTime" >= "startTime")')
    with refused("23502", "externalId"):
        camel.execute("INSERT INTO events (description) VALUES ('x')")
    with refused("23514", "ordered"):
        camel.execute("""INSERT INTO events ("externalId", "startTime", "endTime") VALUES ('e', '2024-01-02', '2024-01-01')""")
    assert dump(cdf, "events") == []


def test_a_table_by_hand_may_mix_and_rename(session, scratch, cdf):
    scratch.table("few", """ "externalId" text, title text OPTIONS (name 'name'), data_set_id bigint""", "assets")
    session.execute("""INSERT INTO scratch.few ("externalId", title) VALUES ('a', 'A')""")
    assert stored(cdf, "assets", "a")["name"] == "A"


# Errors.


@pytest.mark.parametrize(
    ("statement", "sqlstate", "texts"),
    [
        ("INSERT INTO assets (description) VALUES ('x')", "22004", ["externalId"]),
        ("""INSERT INTO assets ("externalId") VALUES ('x')""", "22004", ["externalId"]),
        ("""INSERT INTO assets ("externalId", "createdTime") VALUES ('x', now())""", "22023", ['"createdTime"']),
        ("""INSERT INTO assets ("externalId", name) VALUES (repeat('x', 256), 'x')""", "22001", ['"externalId"', "255"]),
        ("""INSERT INTO assets ("externalId", name, "parentId", "parentExternalId") VALUES ('x', 'x', 1, 'y')""",
         "22023", ['"parentId"', '"parentExternalId"']),
        ("INSERT INTO datapoints (value, \"timestamp\") VALUES (1, now())", "22004",
         ["externalId", "instanceSpace", "instanceExternalId"]),
        ("""INSERT INTO sequence_rows ("rowNumber", columns) VALUES (1, '{"a": 1}')""", "22004", ["externalId"]),
        ("""INSERT INTO timeseries ("externalId", "assetExternalId") VALUES ('x', 'none')""", "23503", ["none"]),
        ("""INSERT INTO events ("externalId", "startTime", "endTime") VALUES ('x', '2024-01-02', '2024-01-01')""",
         "22023", ['"endTime"', '"startTime"']),
        ("""INSERT INTO assets ("externalId", name, "parentExternalId") VALUES ('a', 'a', 'b'), ('b', 'b', 'a')""",
         "22023", ["parentExternalId"]),
    ],
)  # fmt: skip
def test_errors_use_the_names(camel, statement, sqlstate, texts):
    with refused(sqlstate, *texts) as caught:
        camel.execute(statement)
    diagnostics = caught.value.diag
    told = "\n".join(filter(None, [diagnostics.message_primary, diagnostics.message_detail, diagnostics.message_hint]))
    for other in ("external_id", "parent_id", "created_time", "start_time", "instance_space"):
        assert other not in told, told


def test_what_cannot_change_is_named(camel, api):
    api.create("timeseries", "s", isString=False)
    with refused("22023", "isString"):
        camel.execute("""INSERT INTO timeseries ("externalId", "isString") VALUES ('s', true)""")


def test_unknown_columns_are_refused_with_the_names(scratch, session):
    scratch.table("odd", '"externalId" text, "extId" text', "assets")
    with refused("HV00J", "extId", "parentExternalId"):
        session.execute("SELECT * FROM scratch.odd")


# Views and RAW tables.


def test_views_keep_the_names_of_their_properties(camel, cdf, api, mapped):
    create_view(api, "Pump", {"maxFlow": "float64", "serial_number": "text", "external_id": "text"})
    create_view(api, "Flow", {"rate": "float64", "startNodeSpace": "text"}, used_for="edge")
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" FROM SERVER cdf INTO scratch OPTIONS (naming \'camelCase\')')
    assert {"space", "externalId", "createdTime", "lastUpdatedTime", "maxFlow", "serial_number"} <= set(types(mapped, "Pump"))
    edges = set(types(mapped, "Flow"))
    assert {"startNodeExternalId", "endNodeSpace", "endNodeExternalId", "typeSpace", "start_node_space"} <= edges
    camel.execute(
        """INSERT INTO "Pump" (space, "externalId", "maxFlow", serial_number, external_id_) VALUES ('sp', 'p', 1.5, '7', 'x')"""
    )
    read = camel.execute("""SELECT "maxFlow", external_id_ FROM "Pump" WHERE "externalId" = 'p'""").fetchall()
    assert read == [(1.5, "x")]
    camel.execute("""UPDATE "Pump" SET serial_number = '8' WHERE space = 'sp' AND "externalId" = 'p'""")
    camel.execute(
        """INSERT INTO "Pump" (space, "externalId", serial_number) VALUES ('sp', 'p', '9')"""
        ' ON CONFLICT (space, "externalId") DO UPDATE SET serial_number = EXCLUDED.serial_number'
    )
    assert camel.execute('SELECT serial_number, "maxFlow" FROM "Pump"').fetchall() == [("9", 1.5)]
    with refused("22004", "externalId"):
        camel.execute("""INSERT INTO "Pump" (space, "maxFlow") VALUES ('sp', 1)""")


def test_raw_tables_keep_the_names_of_their_columns(camel, api, mapped):
    api.create_raw("d", "t", k={"someText": "x", "other_text": "y"})
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch OPTIONS (naming \'camelCase\')')
    assert list(types(mapped, "t")) == ["key", "someText", "other_text"]
    assert camel.execute('SELECT key, "someText", other_text FROM t').fetchall() == [("k", "x", "y")]


# Registration.


def test_registration_into_public(site):
    with site.superuser() as connection:
        username, password, database, schema = site.register(connection, schema="public", naming="camelCase")
    assert (database, schema) == (site.database, "public")
    with site.role(username, password) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("public",)
        connection.execute("""INSERT INTO public.assets ("externalId", name) VALUES ('a', 'A')""")
        connection.execute("""INSERT INTO events ("externalId") VALUES ('e')""")
        assert connection.execute('SELECT "externalId" FROM assets').fetchall() == [("a",)]
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DROP FOREIGN TABLE public.assets")
    with site.superuser() as connection:
        made = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", [username]).fetchone()
    assert made == (0,)


def test_roles_share_a_schema(site):
    with site.superuser() as connection:
        first = site.register(connection, schema="shared")
        second = site.register(connection, schema="shared")
        # Registered before, in a schema of its own.
        third = site.register(connection)
        assert site.register(connection, username=third[0], schema="shared")[1] is None
    for username, password, *_ in (first, second, third):
        with site.role(username, password) as connection:
            assert connection.execute("SELECT count(*) FROM shared.assets").fetchone() == (0,)
            assert connection.execute("SHOW search_path").fetchone() == ("shared, public",)


def test_registered_again_what_an_administrator_has_changed_stays(site):
    with site.superuser() as connection:
        username, password, *_ = site.register(connection, schema="shared")
        connection.execute(f"REVOKE INSERT ON shared.assets FROM {username}")
        assert site.register(connection, username=username, schema="shared")[1] is None
    with site.role(username, password) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")


@pytest.mark.parametrize(
    ("before", "sqlstate", "words"),
    [
        ("CREATE TABLE public.events (id bigint)", "42P07", 'relation "events"'),
        ("CREATE VIEW public.raw_rows AS SELECT 1 AS key", "42P07", 'relation "raw_rows"'),
        ("CREATE ROLE mallory; CREATE SCHEMA mallorys AUTHORIZATION mallory", "42501", "mallory"),
        ("CREATE ROLE mallory; CREATE TABLE public.labels (a int); ALTER TABLE public.labels OWNER TO mallory",
         "42501", "mallory"),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_left_alone(site, before, sqlstate, words):
    with site.superuser() as connection:
        connection.execute(before)
        objects = site.objects()
        schema = "mallorys" if "mallorys" in before else "public"
        with refused(sqlstate, words):
            site.register(connection, schema=schema)
        assert site.objects() == objects


def test_public_may_belong_to_the_owner_of_the_database(site):
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("CREATE ROLE landlord")
        connection.execute(f"ALTER DATABASE {site.database} OWNER TO landlord")
        for owner in ("pg_database_owner", "landlord"):
            connection.execute(f"ALTER SCHEMA public OWNER TO {owner}")
            assert site.register(connection, schema="public")[3] == "public"
        connection.execute("CREATE SCHEMA landlords AUTHORIZATION landlord")
        with refused("42501", "landlords", "landlord"):
            site.register(connection, schema="landlords")
        # The caller's own schema will do.
        connection.execute("CREATE SCHEMA mine AUTHORIZATION registrar")
        connection.execute("GRANT landlord TO postgres")
    with site.role("registrar") as connection:
        assert site.register(connection, schema="mine", server="own")[3] == "mine"
    with site.superuser() as connection:
        connection.execute("ALTER SCHEMA public OWNER TO postgres")
        connection.execute(f"ALTER DATABASE {site.database} OWNER TO postgres")
        connection.execute("DROP SCHEMA landlords")


def test_a_caller_without_rights_on_the_schema(site):
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    before = site.objects()
    with site.role("registrar") as connection, pytest.raises(errors.InsufficientPrivilege, match="public"):
        site.register(connection, schema="public")
    assert site.objects() == before


def test_tables_keep_their_naming(site):
    with site.superuser() as connection:
        site.register(connection, schema="shared", naming="camelCase")
        before = site.objects()
        with refused("42P07", "camelCase", "shared"):
            site.register(connection, schema="shared")
        assert site.objects() == before
        assert site.register(connection, schema="shared", naming="camelCase")[3] == "shared"


def test_naming_is_checked_before_anything_is_done(site):
    before = site.objects()
    with site.superuser() as connection, refused("HV00J", "CamelCase", "snake_case, camelCase"):
        site.register(connection, naming="CamelCase")
    assert site.objects() == before


def test_schema_and_naming_may_be_left_out(site):
    with site.superuser() as connection:
        username, _, _, schema = site.register(connection, schema=None, naming=None)
        assert schema == username
        columns = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 2", [f"{schema}.assets"]
        )
        assert columns.fetchone() == ("external_id",)
