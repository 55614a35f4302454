"""dlt: each table is a run of a pipeline."""

import json
import os

import dlt
from frames import arrow
from given import request

disposition, _, shape = request.how.partition(", ")
pipeline = dlt.pipeline(
    "gateway",
    destination=dlt.destinations.postgres(request.uri),
    dataset_name=os.environ["DATASET"],
    pipelines_dir=os.path.join(os.environ["HOME"], "pipelines"),
)
# What has failed stays in the pipeline, and would be loaded again in place of this.
pipeline.drop_pending_packages()
KINDS = {"text": "text", "jsonb": "json", "timestamptz": "timestamp", "float8": "double", "boolean": "bool", "bigint": "bigint"}
for table in request.tables:
    columns = {name: {"data_type": KINDS[kind]} for name, kind in zip(table.columns, table.types)}
    write = {"disposition": "merge", "strategy": disposition} if disposition in ("delete-insert", "upsert") else disposition
    resource = dlt.resource(
        arrow(table) if shape == "arrow" else table.mappings(json.loads),
        name=table.name,
        columns=columns,
        primary_key=table.keys,
        write_disposition=write,
    )
    print(pipeline.run(resource))
