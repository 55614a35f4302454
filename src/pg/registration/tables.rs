//! cdf_create_raw_table and cdf_create_view_table: tables of a registered role beside the built-in ones.

use std::fmt::Write;

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Map, Value};

use super::commands::{self, run, spi_error, utf8};
use super::function::{sql_function, FunctionCall};
use super::record::{self, Registration};
use super::update::Held;
use super::{facade, facades};
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::raw::RAW_KEY;
use crate::cdf::resource::Naming;
use crate::cdf::table::view::ViewReference;
use crate::pg::ddl::import::{self, SYSTEM_COLUMNS};
use crate::pg::ddl::options;
use crate::pg::errors::raise_as;
use crate::pg::rights;
use crate::pg::session::{views, wait};
use crate::pg::text::to_palloc;

sql_function!(
    /// Makes a table of a RAW table for a registered role.
    cdf_create_raw_table,
    pg_finfo_cdf_create_raw_table,
    |call| {
        call.writes();
        let (database, table) = (call.required(2, "database")?, call.required(3, "table")?);
        let columns = columns(&call.required(4, "columns")?)?;
        let key = call.text(5).unwrap_or_else(|| RAW_KEY.to_owned());
        TablePlace::of(call)?.create(|place, _| Ok(raw_table(place, &database, &table, &columns, &key)))
    }
);

sql_function!(
    /// Makes a table of a data-model view for a registered role.
    cdf_create_view_table,
    pg_finfo_cdf_create_view_table,
    |call| {
        call.writes();
        let view = ViewReference {
            space: call.required(2, "space")?,
            external_id: call.required(3, "external_id")?,
            version: call.text(4),
        };
        TablePlace::of(call)?.create(|place, role| view_table(place, role, &view))
    }
);

/// Where a new table goes.
struct TablePlace {
    username: String,
    role: pg_sys::Oid,
    registration: Registration,
    held: Held,
    table: String,
}

impl TablePlace {
    fn of(call: &FunctionCall) -> Result<TablePlace, Error> {
        let username = call.required(0, "username")?;
        let table = call.required(1, "tablename")?;
        check_name("table", &table)?;
        let (role, mut registrations) = record::find_one(&username)?;
        // Of several schemas, that with the role's own name.
        let at = registrations.iter().position(|registration| registration.schema == username);
        let registration = registrations.swap_remove(at.unwrap_or(0));
        let held = Held::read(&username, role, &registration)?;
        Ok(TablePlace { username, role, registration, held, table })
    }

    /// Returns the table's name in SQL form.
    fn name(&self) -> String {
        format!("{}.{}", quote_identifier(&self.registration.schema), quote_identifier(&self.table))
    }

    /// Creates the table by the statement that `statement` returns, and grants the role its use. The table belongs to
    /// the registrar, as the built-in ones do.
    fn create(
        mut self,
        statement: impl FnOnce(&TablePlace, pg_sys::Oid) -> Result<String, Error>,
    ) -> Result<pg_sys::Datum, Error> {
        run(&statement(&self, self.role)?)?;
        let (name, caller) = (self.name(), commands::caller());
        let registrar = self.registration.registrar;
        if registrar != caller && rights::exists(registrar) {
            run(&format!("ALTER FOREIGN TABLE {name} OWNER TO {}", rights::role_name(registrar)))?;
        }
        run(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {name} TO {}",
            quote_identifier(&self.username)
        ))?;
        record::add_table(self.role, &self.registration, &self.table)?;
        self.registration.tables.push(self.table.clone());
        facade::join(self.role, &self.registration, &[&self.table])?;
        // SAFETY: look-ups by NUL-terminated names, of what has just been made.
        let relation = unsafe {
            let schema = pg_sys::get_namespace_oid(to_palloc(&self.registration.schema), false);
            pg_sys::get_relname_relid(to_palloc(&self.table), schema)
        };
        Ok(relation.into())
    }
}

/// Refuses a name that PostgreSQL would cut.
fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if name.len() < pg_sys::NAMEDATALEN as usize {
        return Ok(());
    }
    Err(Error::new(Kind::InvalidValue, format!("the name of the {what} is too long: \"{name}\""))
        .hint(format!("PostgreSQL takes names of up to {} bytes.", pg_sys::NAMEDATALEN - 1)))
}

/// The column types of CDF's table API, which SQL has under the same names.
const TYPES: [&str; 16] = [
    "TEXT",
    "VARCHAR",
    "BOOL",
    "BIGINT",
    "DOUBLE PRECISION",
    "REAL",
    "TIMESTAMPTZ",
    "JSON",
    "TEXT[]",
    "VARCHAR[]",
    "BOOL[]",
    "BIGINT[]",
    "DOUBLE PRECISION[]",
    "REAL[]",
    "JSON[]",
    "BYTEA",
];

/// Parses names and SQL types of columns in the form of CDF's table API: `{"title": {"type": "TEXT"}}`.
fn columns(json: &str) -> Result<Vec<(String, &'static str)>, Error> {
    let example = "Give an object such as {\"title\": {\"type\": \"TEXT\"}}.";
    let invalid = |why: String| Error::new(Kind::InvalidValue, why).hint(example);
    let columns: Map<String, Value> = serde_json::from_str(json)
        .map_err(|error| invalid(format!("columns is not an object of columns: {error}")))?;
    let column = |(name, definition): (String, Value)| {
        check_name("column", &name)?;
        if name.is_empty() || name.contains('\0') {
            return Err(invalid("columns has a column without a usable name".to_owned()));
        }
        if SYSTEM_COLUMNS.contains(&name.as_str()) {
            return Err(invalid(format!("a column cannot be called \"{name}\", as one of PostgreSQL's is")));
        }
        let given = definition["type"]
            .as_str()
            .ok_or_else(|| invalid(format!("column \"{name}\" of columns has no type")))?;
        let sql_type = TYPES.iter().find(|known| known.eq_ignore_ascii_case(given)).ok_or_else(|| {
            Error::new(Kind::InvalidValue, format!("column \"{name}\" has an unknown type, \"{given}\""))
                .hint(format!("The types are: {}.", TYPES.join(", ")))
        })?;
        Ok((name, *sql_type))
    };
    columns.into_iter().map(column).collect()
}

fn raw_table(
    place: &TablePlace,
    database: &str,
    table: &str,
    columns: &[(String, &'static str)],
    key: &str,
) -> String {
    let has = |wanted: &str| columns.iter().any(|(name, _)| name == wanted);
    // If no column is named as the row's key, the key gets a column of its own.
    let key = if has(key) { key } else { RAW_KEY };
    let mut sql = format!("CREATE FOREIGN TABLE {} (", place.name());
    if !has(key) {
        import::column(&mut sql, RAW_KEY, RAW_KEY, "text");
    }
    for (name, sql_type) in columns {
        import::column(&mut sql, name, name, sql_type);
    }
    write!(
        sql,
        "\n) SERVER {} OPTIONS (resource 'raw_rows', database {}, \"table\" {}, primary_key {})",
        quote_identifier(&place.registration.server),
        quote_literal(database),
        quote_literal(table),
        quote_literal(key)
    )
    .expect("a String takes all");
    sql
}

fn view_table(place: &TablePlace, role: pg_sys::Oid, name: &ViewReference) -> Result<String, Error> {
    // With the role's credentials: a view that the role cannot read would be of no use to it.
    let connection = options::connection(place.held.server, role)?;
    let (definitions, activity) =
        views::definitions(&connection, format!("for the definition of view {name}"))?;
    let asked = name.clone();
    let Some(view) = wait::run(&activity, async move { definitions.view(&asked).await })?? else {
        raise_as(
            PgSqlErrorCode::ERRCODE_FDW_TABLE_NOT_FOUND,
            Error::new(Kind::MissingReference, format!("there is no view {name} in CDF"))
                .hint("Check space, external_id and version, and the client's access to the space."),
        );
    };
    let server = quote_identifier(&place.registration.server);
    let naming = naming(&place.registration)?;
    Ok(import::create_view_table(&view, &place.name(), naming, &server, name.version.as_deref()))
}

/// Returns how the registration's other tables name their columns.
fn naming(registration: &Registration) -> Result<Naming, Error> {
    let query = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN unnest($4, $5) f(facade, partition) ON f.facade = c.oid \
         JOIN pg_foreign_table t ON t.ftrelid = coalesce(f.partition, c.oid) JOIN pg_foreign_server s ON s.oid = t.ftserver \
         JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname = convert_from($1, 'UTF8') \
         AND s.srvname = convert_from($2, 'UTF8') AND c.relname = ANY ($3) AND a.attname = 'externalId'";
    let built_in: Vec<&str> = crate::cdf::resource::RESOURCES.iter().map(|resource| resource.name).collect();
    let (of_them, partitions) = facades::pairs(&facades::of(registration)?);
    let arguments = [
        utf8(&registration.schema).into(),
        utf8(&registration.server).into(),
        built_in.into(),
        of_them.into(),
        partitions.into(),
    ];
    let found: Option<i64> =
        Spi::connect(|client| client.select(query, Some(1), &arguments)?.first().get_one())
            .map_err(spi_error)?;
    Ok(if found > Some(0) { Naming::CamelCase } else { Naming::SnakeCase })
}
