// knex: batchInsert, and insert … onConflict … merge.
"use strict";
const { main, notice, objects } = require("./common");

const knex = require("knex")({
  client: "pg",
  connection: {},
  pool: {
    min: 0,
    max: 1,
    afterCreate: (connection, done) => {
      connection.on("notice", notice);
      done(null, connection);
    },
  },
});

main({
  methods: {
    batch: (transaction, table) => transaction.batchInsert(table.name, objects(table), 100),
    upsert: (transaction, table) => transaction(table.name).insert(objects(table)).onConflict(table.keys).merge(),
  },
  transaction: work => knex.transaction(work),
  alive: () => knex.select(knex.raw("1")),
  close: () => knex.destroy(),
});
