// Prisma, whose client needs no engine of its own with a driver adapter: createMany, and upsert row by row.
"use strict";
const { PrismaClient } = require("@prisma/client");
const { PrismaPg } = require("@prisma/adapter-pg");
const { main, objects } = require("./common");

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, SCHEMA } = process.env;
const connectionString = `postgresql://${PGUSER}:${PGPASSWORD}@${PGHOST}:${PGPORT}/${PGDATABASE}`;
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString, max: 1 }, { schema: SCHEMA }) });

// A NULL of a Json column is left out: Prisma takes a word of its own for it.
const data = table => objects(table).map(row => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)));
const where = (table, row) => {
  const keys = Object.fromEntries(table.keys.map(key => [key, row[key]]));
  return table.keys.length > 1 ? { [table.keys.join("_")]: keys } : keys;
};

main({
  methods: {
    many: (transaction, table) => transaction[table.name].createMany({ data: data(table) }),
    upsert: async (transaction, table) => {
      for (const row of data(table)) {
        const update = Object.fromEntries(Object.entries(row).filter(([column]) => !table.keys.includes(column)));
        await transaction[table.name].upsert({ where: where(table, row), create: row, update });
      }
    },
  },
  transaction: work => prisma.$transaction(work, { timeout: 600_000 }),
  alive: () => prisma.$queryRaw`SELECT 1`,
  close: () => prisma.$disconnect(),
  code: error => error.meta?.driverAdapterError?.cause?.originalCode ?? error.cause?.originalCode ?? error.code,
});
