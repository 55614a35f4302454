// Prisma, whose client needs no engine of its own with a driver adapter: createMany.
"use strict";
const { PrismaClient } = require("@prisma/client");
const { PrismaPg } = require("@prisma/adapter-pg");
const { main, objects } = require("./common");

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, SCHEMA } = process.env;
const connectionString = `postgresql://${PGUSER}:${PGPASSWORD}@${PGHOST}:${PGPORT}/${PGDATABASE}`;
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString, max: 1 }, { schema: SCHEMA }) });

// A NULL of a Json column is left out: Prisma takes a word of its own for it.
const data = table => objects(table).map(row => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)));
const cause = error => error.meta?.driverAdapterError?.cause ?? error.cause;

main({
  methods: {
    many: (transaction, table) => transaction[table.name].createMany({ data: data(table) }),
  },
  transaction: work => prisma.$transaction(work, { timeout: 600_000 }),
  alive: () => prisma.$queryRaw`SELECT 1`,
  close: () => prisma.$disconnect(),
  // Prisma has words of its own for some errors; the server's are in the cause.
  code: error => cause(error)?.originalCode ?? error.code,
  text: error => cause(error)?.originalMessage ?? error.message,
});
