// What every program of this folder does: METHOD commit|rollback FILE, where FILE holds a load as JSON.
"use strict";
const fs = require("node:fs");

class Back extends Error {}

const say = (...words) => console.log(words.map(word => String(word).replace(/\s*\n\s*/g, " ")).join("\t"));
exports.say = say;
exports.notice = message => say("notice", message.message ?? message);

const PLAIN = {
  jsonb: JSON.parse,
  timestamptz: text => new Date(text),
};
const typed = (value, type) => (value === null ? null : (PLAIN[type] ?? (it => it))(value));
exports.typedRows = table => table.rows.map(row => row.map((value, at) => typed(value, table.types[at])));
exports.objects = table =>
  exports.typedRows(table).map(row => Object.fromEntries(table.columns.map((column, at) => [column, row[at]])));

// The rows as COPY's text format has them.
const escape = value =>
  value === null ? "\\N" : String(value).replace(/[\\\b\f\n\r\t\v]/g, it => "\\" + { "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v" }[it]);
exports.copyLines = table => table.rows.map(row => row.map(escape).join("\t") + "\n");

// `transaction(work)` calls work(handle) inside a transaction, and rolls back if it throws. `methods` load a table.
exports.main = async ({ transaction, methods, alive, close, code = error => error.code, text = error => error.message }) => {
  const [method, end, file] = process.argv.slice(2);
  const load = JSON.parse(fs.readFileSync(file, "utf8"));
  try {
    await transaction(async handle => {
      for (const table of load) await methods[method](handle, table);
      if (end === "rollback") throw new Back("as asked");
    });
    say("committed");
  } catch (error) {
    if (error instanceof Back) say("rolled back");
    else say("refused", code(error), text(error));
  }
  await alive();
  say("alive");
  await close();
};
