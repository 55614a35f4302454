//! Joins by key: a table of this extension is joined with other rows by asking CDF for the keys of these rows, as many
//! with each request as CDF takes.
//!
//! PostgreSQL itself either reads the whole resource and joins it here, or asks for one key after the other. Tools that
//! load a staging table and merge it into its target (`UPDATE … FROM staging`, `DELETE … USING staging`, `INSERT … SELECT …
//! FROM staging LEFT JOIN target …`) would read all of CDF for a few rows.
//!
//! A join by key takes rows of its outer side until they have enough different keys, brings the scan of the table these
//! keys, and joins what the scan finds with the rows that it has kept. Then the next batch follows.
//!
//! `hook` proposes such joins to the planner, which compares their costs with those of PostgreSQL's own; `leaves` finds the
//! tables behind a partitioned one, and `unique` tells the planner that a key is. `path` makes the path and the plan, `plan` says what is in a plan. `execute` runs it,
//! with a `batch` of rows at a time, as the functions of its `node`, and `explain` shows it.

mod batch;
mod evaluate;
mod execute;
mod explain;
mod hook;
mod kind;
mod leaves;
mod node;
mod nulling;
mod path;
mod plan;
mod unique;

/// Installs the hooks, and tells PostgreSQL of the plan's node. Called once, from `_PG_init`.
pub fn init() {
    node::init();
    hook::init();
    unique::init();
}
