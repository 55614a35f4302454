// TypeORM: entities whose primary columns are the tables' keys; insert, upsert, and save, which looks the keys up first.
"use strict";
require("reflect-metadata");
const { DataSource, EntitySchema } = require("typeorm");
const fs = require("node:fs");
const { main, notice, objects } = require("./common");

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE } = process.env;
const TYPES = { text: "text", jsonb: "jsonb", timestamptz: "timestamptz", float8: "double precision", boolean: "boolean", bigint: "bigint" };

// `save` clears what is null, and leaves alone what is not there.
const given = row => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null));

const entity = table =>
  new EntitySchema({
    name: table.name,
    columns: Object.fromEntries(
      table.columns.map((column, at) => [column, { type: TYPES[table.types[at]], primary: table.keys.includes(column), nullable: true }]),
    ),
  });

(async () => {
  const source = new DataSource({
    type: "postgres",
    host: PGHOST,
    port: Number(PGPORT),
    username: PGUSER,
    password: PGPASSWORD,
    database: PGDATABASE,
    poolSize: 1,
    installExtensions: false,
    logNotifications: true,
    logger: {
      log: (level, message) => notice(message),
      logQuery() {},
      logQueryError() {},
      logQuerySlow() {},
      logSchemaBuild() {},
      logMigration() {},
    },
    entities: JSON.parse(fs.readFileSync(process.argv[4], "utf8")).map(entity),
  });
  await source.initialize();
  await main({
    methods: {
      insert: (manager, table) => manager.insert(table.name, objects(table)),
      save: (manager, table) => manager.save(table.name, objects(table).map(given), { chunk: 200 }),
      upsert: (manager, table) => manager.upsert(table.name, objects(table), table.keys),
    },
    transaction: work => source.transaction(work),
    alive: () => source.query("SELECT 1"),
    close: () => source.destroy(),
  });
})();
