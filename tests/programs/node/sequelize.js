// Sequelize: models whose keys are the tables' keys; bulkCreate, with updateOnDuplicate, and create.
"use strict";
const { Sequelize, DataTypes } = require("sequelize");
const { main, notice, objects } = require("./common");

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE } = process.env;
const sequelize = new Sequelize(PGDATABASE, PGUSER, PGPASSWORD, {
  dialect: "postgres",
  host: PGHOST,
  port: PGPORT,
  logging: false,
  pool: { max: 1 },
  // Sequelize silences NOTICEs otherwise.
  dialectOptions: { clientMinMessages: "notice" },
  define: { timestamps: false, freezeTableName: true },
  hooks: { afterConnect: connection => connection.on("notice", notice) },
});
const TYPES = { text: DataTypes.TEXT, jsonb: DataTypes.JSONB, timestamptz: DataTypes.DATE, float8: DataTypes.DOUBLE, boolean: DataTypes.BOOLEAN, bigint: DataTypes.BIGINT };

const models = {};
const model = table =>
  (models[table.name] ??= sequelize.define(
    table.name,
    Object.fromEntries(table.columns.map((column, at) => [column, { type: TYPES[table.types[at]], primaryKey: table.keys.includes(column) }])),
  ));

main({
  methods: {
    bulk: (transaction, table) => model(table).bulkCreate(objects(table), { transaction }),
    single: async (transaction, table) => {
      for (const row of objects(table).slice(0, 100)) await model(table).create(row, { transaction });
      await model(table).bulkCreate(objects(table).slice(100), { transaction });
    },
    upsert: (transaction, table) =>
      model(table).bulkCreate(objects(table), { transaction, updateOnDuplicate: table.columns.filter(column => !table.keys.includes(column)) }),
  },
  transaction: work => sequelize.transaction(work),
  alive: () => sequelize.authenticate(),
  close: () => sequelize.close(),
  code: error => error.original?.code ?? error.name,
});
