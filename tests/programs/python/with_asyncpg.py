"""asyncpg."""

import asyncio

import asyncpg
from given import request


async def main() -> None:
    dsn = dict(request.dsn)
    connection = await asyncpg.connect(database=dsn.pop("dbname"), **dsn)
    connection.add_log_listener(lambda _, message: print(f"{message.severity}: {message.message}"))
    transaction = connection.transaction()
    await transaction.start()
    for table in request.tables:
        places = ", ".join(f"${at + 1}" for at in range(len(table.columns)))
        insert = f"INSERT INTO {table.name} ({table.listed}) VALUES ({places})"
        match request.how:
            case "executemany":
                await connection.executemany(insert, table.typed())
            case "on conflict":
                await connection.executemany(f"{insert} {table.on_conflict}", table.typed())
            case "copy_records_to_table":
                await connection.copy_records_to_table(table.name, records=table.typed(), columns=table.columns)
    if request.rolls_back:
        await transaction.rollback()
    else:
        await transaction.commit()
    await connection.close()


asyncio.run(main())
