// node-postgres, and COPY through pg-copy-streams.
"use strict";
const { Client } = require("pg");
const { from } = require("pg-copy-streams");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { main, notice, typedRows, copyLines } = require("./common");

const quoted = names => names.map(name => `"${name}"`).join(", ");
const target = table => `${table.name} (${quoted(table.columns)})`;
const numbers = (count, first = 1) => Array.from({ length: count }, (_, at) => `$${first + at}`).join(", ");

// A prepared statement, executed for each row.
const prepared = ending => async (client, table) => {
  const text = `INSERT INTO ${target(table)} VALUES (${numbers(table.columns.length)})${ending(table)}`;
  for (const values of typedRows(table)) await client.query({ name: `insert ${table.name}`, text, values });
};
const setAll = table =>
  ` ON CONFLICT (${quoted(table.keys)}) DO UPDATE SET ` +
  table.columns.filter(column => !table.keys.includes(column)).map(column => `"${column}" = EXCLUDED."${column}"`).join(", ");

const methods = {
  prepared: prepared(() => ""),
  upsert: prepared(setAll),
  rows: async (client, table) => {
    const rows = typedRows(table);
    const tuples = rows.map((row, at) => `(${numbers(row.length, at * row.length + 1)})`).join(", ");
    await client.query(`INSERT INTO ${target(table)} VALUES ${tuples}`, rows.flat());
  },
  copy: async (client, table) => {
    await pipeline(Readable.from(copyLines(table)), client.query(from(`COPY ${target(table)} FROM STDIN`)));
  },
};

(async () => {
  const client = new Client();
  client.on("notice", notice);
  await client.connect();
  await main({
    methods,
    transaction: async work => {
      await client.query("BEGIN");
      try {
        await work(client);
        await client.query("COMMIT");
      } catch (error) {
        await client.query("ROLLBACK");
        throw error;
      }
    },
    alive: () => client.query("SELECT 1"),
    close: () => client.end(),
  });
})();
