"""A pipeline made for Cognite's hosted gateway: docs/from-cognite-gateway.md as a new user follows it."""

from __future__ import annotations

import psycopg
from support import Api, dump, names, refused

REPORT = 'INSERT INTO public.extraction_pipeline_runs ("externalId", status, message) VALUES (%s, %s, %s)'


def load(connection: psycopg.Connection, rows: list[tuple]) -> None:
    """As Data Factory's Bulk insert: one INSERT of many rows with bound parameters."""
    places = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    statement = f'INSERT INTO public.assets ("externalId", name, "parentExternalId", "dataSetId") VALUES {places}'
    connection.execute(statement, [value for row in rows for value in row], prepare=True)


def test_the_pipeline_of_the_hosted_gateway(site):
    cdf = site.emulator
    (data_set,) = Api(cdf).create("datasets", "set")
    Api(cdf).create("extpipes", "adf", dataSetId=data_set)
    with site.superuser() as connection:
        username, password, *_ = site.register(connection, schema="public", naming="camelCase")
        connection.execute(
            "CREATE FOREIGN TABLE public.movies (title text, year text) SERVER cdf"
            """ OPTIONS (resource 'raw_rows', database 'my_database', "table" 'my_table', primary_key 'title')"""
        )
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON public.movies TO {username}")
    with site.role(username, password) as connection:
        rows = [("root", "Root", None, data_set)]
        load(connection, rows + [(f"a{number}", "A", "root", data_set) for number in range(5000)])
        connection.execute(REPORT, ["adf", "success", None])
        assert len(names(cdf, "assets")) == 5001
        # The branch for failures: an activity after the one that has failed.
        with refused("23503"):
            load(connection, [("b", "B", None, 4711)])
        connection.execute(REPORT, ["adf", "failure", "the load was refused"])
        assert [(run["status"], run.get("message")) for run in dump(cdf, "extpipes/runs")] == [
            ("success", None),
            ("failure", "the load was refused"),
        ]
        assert "b" not in names(cdf, "assets")
        connection.execute("INSERT INTO public.movies (title, year) VALUES ('Alien', '1979')")
        assert connection.execute("SELECT year FROM movies WHERE title = 'Alien'").fetchall() == [("1979",)]
        assert names(cdf, "raw") == ["Alien"]
