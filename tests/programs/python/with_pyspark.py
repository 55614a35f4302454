"""Spark's JDBC writer: each partition is a transaction of its own, so that the tables are written with one partition here."""

import os
from datetime import timezone

from given import request
from pyspark.sql import SparkSession

KINDS = {"text": "string", "jsonb": "string", "timestamptz": "timestamp", "float8": "double", "boolean": "boolean", "bigint": "bigint"}

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.jars", os.environ["PGJDBC"])
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
dsn = request.dsn
for table in request.tables:
    schema = ", ".join(f"`{name}` {KINDS[kind]}" for name, kind in zip(table.columns, table.types))
    rows = [[value.astimezone(timezone.utc) if hasattr(value, "astimezone") else value for value in row] for row in table.typed()]
    (
        spark.createDataFrame(rows, schema)
        .coalesce(1)
        .write.format("jdbc")
        .option("driver", "org.postgresql.Driver")
        .option("url", f"jdbc:postgresql://{dsn['host']}:{dsn['port']}/{dsn['dbname']}?stringtype=unspecified")
        .option("dbtable", table.name)
        .option("user", dsn["user"])
        .option("password", dsn["password"])
        .option("batchsize", 500)
        .mode("append")
        .save()
    )
spark.stop()
