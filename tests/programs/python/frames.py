"""The tables as Arrow has them."""

import pyarrow
from given import Table

KINDS = {
    "text": pyarrow.string(),
    "jsonb": pyarrow.string(),
    "timestamptz": pyarrow.timestamp("us", tz="UTC"),
    "float8": pyarrow.float64(),
    "boolean": pyarrow.bool_(),
    "bigint": pyarrow.int64(),
}


def arrow(table: Table) -> pyarrow.Table:
    schema = pyarrow.schema(list(zip(table.columns, (KINDS[kind] for kind in table.types))))
    return pyarrow.Table.from_pylist(table.mappings(), schema=schema)
