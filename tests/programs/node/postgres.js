// Postgres.js.
"use strict";
const postgres = require("postgres");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const { main, notice, objects, copyLines } = require("./common");

const sql = postgres({ max: 1, onnotice: notice });

main({
  methods: {
    rows: (sql, table) => sql`INSERT INTO ${sql(table.name)} ${sql(objects(table), ...table.columns)}`,
    upsert: (sql, table) => {
      const rest = table.columns.filter(column => !table.keys.includes(column));
      const set = rest.map((column, at) => sql`${at ? sql`,` : sql``} ${sql(column)} = EXCLUDED.${sql(column)}`);
      return sql`INSERT INTO ${sql(table.name)} ${sql(objects(table), ...table.columns)}
        ON CONFLICT (${sql(table.keys)}) DO UPDATE SET ${set}`;
    },
    copy: async (sql, table) => {
      const stream = await sql`COPY ${sql(table.name)} (${sql(table.columns)}) FROM STDIN`.writable();
      await pipeline(Readable.from(copyLines(table)), stream);
    },
  },
  transaction: work => sql.begin(work),
  alive: () => sql`SELECT 1`,
  close: () => sql.end(),
});
