//! IMPORT FOREIGN SCHEMA: the built-in tables, those of a data-model space, and those of a RAW database.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::options;
use crate::cdf::error::{list_names, Error, Kind, NAMED_ROWS};
use crate::cdf::read::sample::{self, SampledColumn};
use crate::cdf::resource::raw::RAW_KEY;
use crate::cdf::resource::view::{EDGES, NODES};
use crate::cdf::resource::{Column, InstanceEnd, Naming, Resource, Role, RESOURCES};
use crate::cdf::table::view::{PropertyType, UsedFor, View};
use crate::pg::encoding::encode;
use crate::pg::errors::{raise_as, warn, OrRaise};
use crate::pg::list::pointers;
use crate::pg::session::{views, wait};
use crate::pg::text::{from_server, from_server_lossy, to_server};

/// The remote schema of the built-in tables.
const BUILT_IN: &str = "cdf";
/// The prefixes that name a data-model space, and a RAW database.
const SPACE: &str = "space:";
const RAW: &str = "raw:";

/// The option that chooses the names of columns.
const NAMING: &str = "naming";

/// Bytes of a name in PostgreSQL.
const NAME_BYTES: usize = 63;
/// Columns of a table in PostgreSQL.
const COLUMNS: usize = pg_sys::MaxHeapAttributeNumber as usize;
/// The columns that every table has in PostgreSQL.
pub const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"];

/// Returns the statements that create the tables of a remote schema. PostgreSQL itself drops the tables that LIMIT TO and
/// EXCEPT exclude, and creates the others in the local schema.
///
/// # Safety
/// Called by PostgreSQL, which passes the parsed statement.
#[pg_guard]
pub unsafe extern "C-unwind" fn import_foreign_schema(
    statement: *mut pg_sys::ImportForeignSchemaStmt,
    server: pg_sys::Oid,
) -> *mut pg_sys::List {
    // SAFETY: a parsed statement's names are NUL-terminated, its lists hold what the grammar puts there: RangeVar for
    // tables, DefElem for options. What is allocated here lives in the current memory context, as the caller expects.
    unsafe {
        let statement = &*statement;
        let naming = naming(statement.options);
        let schema = from_server(statement.remote_schema);
        let listed: Vec<String> = pointers::<pg_sys::RangeVar>(statement.table_list)
            .iter()
            .map(|table| from_server((**table).relname))
            .collect();
        let wanted = ImportedTables {
            limited: statement.list_type == pg_sys::ImportForeignSchemaType::FDW_IMPORT_SCHEMA_LIMIT_TO,
            except: statement.list_type == pg_sys::ImportForeignSchemaType::FDW_IMPORT_SCHEMA_EXCEPT,
            listed,
        };
        let name = quote_identifier(from_server(statement.server_name));
        let statements = if schema == BUILT_IN {
            let names: Vec<&str> = RESOURCES.iter().map(|resource| resource.name).collect();
            wanted.require(&schema, &names);
            RESOURCES.iter().map(|resource| create_table(resource, naming, &name)).collect()
        } else if let Some(space) = schema.strip_prefix(SPACE) {
            of_space(&wanted, &schema, space, naming, server, &name)
        } else if let Some(database) = schema.strip_prefix(RAW) {
            of_database(&wanted, &schema, database, server, &name)
        } else {
            no_schema(
                format!("there is no remote schema \"{schema}\""),
                "There are cdf, with the built-in tables, \"space:<space>\", with the views of a data-model space, and \
                 \"raw:<database>\", with the tables of a RAW database.",
            )
        };
        statements.into_iter().fold(std::ptr::null_mut(), |list, statement: String| {
            // Names of CDF that the database cannot represent, or that hold a NUL, were left out.
            let statement = to_server(&statement).or_raise();
            pg_sys::lappend(list, pg_sys::pstrdup(statement.as_ptr()).cast())
        })
    }
}

/// Reads the naming of columns from the statement's options.
///
/// # Safety
/// `list` holds a statement's DefElem nodes.
unsafe fn naming(list: *mut pg_sys::List) -> Naming {
    let mut naming = Naming::default();
    // SAFETY: the caller's promise; names and values are NUL-terminated.
    unsafe {
        for option in pointers::<pg_sys::DefElem>(list) {
            let name = from_server_lossy((**option).defname);
            if name != NAMING {
                let why = format!("invalid option \"{name}\" for IMPORT FOREIGN SCHEMA");
                raise_as(
                    PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
                    Error::new(Kind::InvalidOption, why).hint(format!(
                        "Its only option is {NAMING}. Those of its tables can be set with ALTER FOREIGN TABLE."
                    )),
                );
            }
            naming = options::naming(&from_server_lossy(pg_sys::defGetString(*option))).or_raise();
        }
    }
    naming
}

fn no_schema(message: String, hint: &str) -> ! {
    let error = Error::new(Kind::InvalidOption, message).hint(hint);
    raise_as(PgSqlErrorCode::ERRCODE_FDW_SCHEMA_NOT_FOUND, error)
}

/// The tables that the statement names.
struct ImportedTables {
    limited: bool,
    except: bool,
    listed: Vec<String>,
}

impl ImportedTables {
    /// Refuses names in LIMIT TO that are no tables.
    fn require(&self, schema: &str, names: &[&str]) {
        let missing = self.listed.iter().find(|name| !names.contains(&name.as_str()));
        if let (true, Some(name)) = (self.limited, missing) {
            raise_as(
                PgSqlErrorCode::ERRCODE_FDW_TABLE_NOT_FOUND,
                Error::new(Kind::InvalidOption, format!("remote schema {schema} has no table \"{name}\""))
                    .hint(format!("Its tables are: {}.", names.join(", "))),
            );
        }
    }

    /// Whether PostgreSQL will keep the table.
    fn includes(&self, name: &str) -> bool {
        let listed = || self.listed.iter().any(|listed| listed == name);
        (!self.limited || listed()) && !(self.except && listed())
    }
}

/// Makes a table for each view of a data-model space.
fn of_space(
    wanted: &ImportedTables,
    schema: &str,
    space: &str,
    naming: Naming,
    server: pg_sys::Oid,
    name: &str,
) -> Vec<String> {
    // SAFETY: reads a variable of the backend.
    let user = unsafe { pg_sys::GetUserId() };
    let connection = options::connection(server, user).or_raise();
    let what = format!("for the views of space \"{space}\"");
    let (definitions, activity) = views::definitions(&connection, what).or_raise();
    let asked = space.to_owned();
    let found = wait::run(&activity, async move { definitions.views(&asked).await }).or_raise().or_raise();
    let Some(found) = found else {
        no_schema(
            format!("there is no space \"{space}\" in CDF"),
            "Check its name, and the client's access to the space.",
        );
    };
    let found: Vec<View> =
        found.into_iter().filter(|view| can_be_had("view", &view.name.external_id)).collect();
    let names = unique(found.iter().map(|view| view.name.external_id.as_str()), &[]);
    wanted.require(schema, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let statements = found.iter().zip(&names).filter(|(_, table)| wanted.includes(table));
    let create = |(view, table): (&View, &String)| {
        create_view_table(view, &quoted(table), naming, name, Some(&view.name.version))
    };
    statements.map(create).collect()
}

/// Makes a table for each table of a RAW database.
fn of_database(
    wanted: &ImportedTables,
    schema: &str,
    database: &str,
    server: pg_sys::Oid,
    name: &str,
) -> Vec<String> {
    // SAFETY: reads a variable of the backend.
    let user = unsafe { pg_sys::GetUserId() };
    let connection = options::connection(server, user).or_raise();
    let what = format!("for the tables of RAW database \"{database}\"");
    let (definitions, activity) = views::definitions(&connection, what).or_raise();
    let asked = database.to_owned();
    let (definitions, found) = wait::run(&activity, async move {
        let found = sample::tables(&definitions, &asked).await;
        (definitions, found)
    })
    .or_raise();
    let Some(found) = found.or_raise() else {
        no_schema(
            format!("there is no RAW database \"{database}\" in CDF"),
            "Check its name, and the client's access to it.",
        );
    };
    let found: Vec<String> = found.into_iter().filter(|table| can_be_had("RAW table", table)).collect();
    let names = unique(found.iter().map(String::as_str), &[]);
    wanted.require(schema, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let chosen: Vec<(String, String)> =
        found.into_iter().zip(names).filter(|(_, table)| wanted.includes(table)).collect();
    let asked = database.to_owned();
    let sampled = wait::run(&activity, async move {
        let mut sampled = Vec::with_capacity(chosen.len());
        for (raw, table) in chosen {
            let columns = match sample::columns(&definitions, &asked, &raw).await {
                Err(error) if !is_about_one_table(&error) => return Err(error),
                columns => columns,
            };
            sampled.push((raw, table, columns));
        }
        Ok::<_, Error>(sampled)
    });
    let mut statements = Vec::new();
    for (raw, table, columns) in sampled.or_raise().or_raise() {
        match columns {
            Ok(columns) => statements.push(create_raw_table(database, &raw, &table, &columns, name)),
            Err(mut error) => {
                error.message = format!("RAW table \"{raw}\" is left out: {}", error.message);
                warn(error);
            }
        }
    }
    statements
}

/// Whether other tables may still be readable although this one is not.
fn is_about_one_table(error: &Error) -> bool {
    use Kind::*;
    !matches!(error.kind, CannotConnect | ConnectionLost | NotAuthenticated | Throttled | TimedOut | Internal)
}

/// Returns why nothing in the database can have this name.
fn flaw(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("the name is empty"),
        _ if name.contains('\0') => Some("the name holds a NUL"),
        _ if encode(name).is_none() => Some("the database's encoding lacks characters of the name"),
        _ => None,
    }
}

/// Warns about a table that cannot be imported. The others are imported.
fn can_be_had(what: &str, name: &str) -> bool {
    let flaw = flaw(name);
    if let Some(flaw) = flaw {
        warn(Error::new(Kind::Unsupported, format!("{what} \"{name}\" is left out: {flaw}")));
    }
    flaw.is_none()
}

/// Returns the first `most` columns that a table can have. Warns about the others.
fn possible<'c, C>(what: &str, columns: &'c [C], name: impl Fn(&C) -> &str, most: usize) -> Vec<&'c C> {
    let mut kept = Vec::with_capacity(columns.len());
    for column in columns {
        match flaw(name(column)) {
            None => kept.push(column),
            Some(flaw) => {
                let name = name(column).replace('\0', "\\0");
                let why = format!("column \"{name}\" of {what} is left out: {flaw}");
                warn(Error::new(Kind::Unsupported, why));
            }
        }
    }
    if kept.len() > most {
        let over = kept.split_off(most);
        let names: Vec<String> =
            over.iter().take(NAMED_ROWS).map(|column| format!("\"{}\"", name(column))).collect();
        let why = format!(
            "{} columns of {what} are left out, the first {}: a table has {COLUMNS} columns at most",
            over.len(),
            names[0]
        );
        warn(
            Error::new(Kind::Unsupported, why)
                .detail(format!("Columns: {}.", list_names(names.iter(), over.len())))
                .hint("Declare a foreign table by hand with the columns that are needed."),
        );
    }
    kept
}

/// Makes names that PostgreSQL accepts: cut to its length, and numbered where two would be equal, or one is taken.
/// Names that can stay as they are do.
fn unique<'n>(names: impl Iterator<Item = &'n str>, taken: &[&str]) -> Vec<String> {
    let names: Vec<&str> = names.collect();
    let mut used: HashSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    let stays: Vec<bool> =
        names.iter().map(|name| name.len() <= NAME_BYTES && used.insert((*name).to_owned())).collect();
    let mut made = Vec::with_capacity(names.len());
    for (name, stays) in names.into_iter().zip(stays) {
        if stays {
            made.push(name.to_owned());
            continue;
        }
        let cut = |suffix: &str| {
            let mut end = name.len().min(NAME_BYTES - suffix.len());
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}{suffix}", &name[..end])
        };
        let mut candidate = cut("");
        let mut number = 1;
        while !used.insert(candidate.clone()) {
            let suffix = if number == 1 { "_".to_owned() } else { format!("_{number}") };
            candidate = cut(&suffix);
            number += 1;
        }
        made.push(candidate);
    }
    made
}

/// Writes a column's definition.
fn plain_column(sql: &mut String, name: &str, sql_type: &str) {
    let comma = if sql.ends_with('(') { "" } else { "," };
    write!(sql, "{comma}\n  {} {sql_type}", quoted(name)).expect("a String takes all");
}

/// As [`plain_column`], with the option `name` where the SQL name is not CDF's name.
pub fn column(sql: &mut String, name: &str, cdf_name: &str, sql_type: &str) {
    plain_column(sql, name, sql_type);
    if name != cdf_name {
        write!(sql, " OPTIONS (name {})", quote_literal(cdf_name)).expect("a String takes all");
    }
}

/// Always quoted, because `timestamp` and `value` are SQL keywords.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the statement that creates a table of a view; `table` and `server` are in SQL form. Without a version the
/// table always shows the newest one.
pub fn create_view_table(
    view: &View,
    table: &str,
    naming: Naming,
    server: &str,
    version: Option<&str>,
) -> String {
    let resource = if view.used_for == UsedFor::Edges { &EDGES } else { &NODES };
    // The version tells users little, and a property may have the name of any column of edges.
    let fixed: Vec<&Column> = resource
        .columns
        .iter()
        .filter(|column| match column.role {
            Role::Version => false,
            Role::EndSpace(InstanceEnd::Type) | Role::EndExternalId(InstanceEnd::Type) => {
                view.used_for == UsedFor::Edges
            }
            _ => true,
        })
        .collect();
    // If a property is named like a fixed column of CDF, the name means the property.
    let name = |column: &Column| {
        let name = naming.of(column);
        if view.property(&name).is_some() {
            column.name.into()
        } else {
            name
        }
    };
    let all = || NODES.columns.iter().chain(EDGES.columns);
    let names: Vec<Cow<'static, str>> = all().map(name).collect();
    let reserved: Vec<&str> = all()
        .map(|column| column.name)
        .chain(names.iter().map(|name| &**name))
        .chain(SYSTEM_COLUMNS)
        .collect();
    let mut sql = format!("CREATE FOREIGN TABLE {table} (");
    for made in &fixed {
        let name = name(made);
        column(&mut sql, &name, &name, made.column_type.sql());
    }
    let what = format!("view {}", view.name);
    let properties = possible(&what, &view.properties, |property| &property.name, COLUMNS - fixed.len());
    let names = unique(properties.iter().map(|property| property.name.as_str()), &reserved);
    for (property, name) in properties.into_iter().zip(&names) {
        let mut sql_type = property.property_type.sql().to_owned();
        // A list of documents is one document.
        let document = matches!(property.property_type, PropertyType::Json | PropertyType::Direct);
        if property.list.is_some() {
            sql_type = if document { "jsonb[]".to_owned() } else { format!("{sql_type}[]") };
        }
        column(&mut sql, name, &property.name, &sql_type);
    }
    let option = |value: &str| quote_literal(value);
    write!(
        sql,
        "\n) SERVER {server} OPTIONS (resource 'view', space {}, external_id {}",
        option(&view.name.space),
        option(&view.name.external_id)
    )
    .expect("a String takes all");
    if let Some(version) = version {
        write!(sql, ", version {}", option(version)).expect("a String takes all");
    }
    sql.push(')');
    sql
}

/// Returns the statement that creates a table of a RAW table; `server` is in SQL form.
fn create_raw_table(
    database: &str,
    raw: &str,
    table: &str,
    columns: &[SampledColumn],
    server: &str,
) -> String {
    let mut sql = format!("CREATE FOREIGN TABLE {} (", quoted(table));
    plain_column(&mut sql, RAW_KEY, "text");
    let columns = possible(&format!("RAW table \"{raw}\""), columns, |(name, _)| name, COLUMNS - 1);
    let taken: Vec<&str> = SYSTEM_COLUMNS.into_iter().chain([RAW_KEY]).collect();
    let names = unique(columns.iter().map(|(name, _)| name.as_str()), &taken);
    for ((cdf_name, sql_type), name) in columns.iter().zip(&names) {
        column(&mut sql, name, cdf_name, sql_type);
    }
    write!(
        sql,
        "\n) SERVER {server} OPTIONS (resource 'raw_rows', database {}, \"table\" {})",
        quote_literal(database),
        quote_literal(raw)
    )
    .expect("a String takes all");
    sql
}

/// Returns the statement that creates a built-in table; `server` is in SQL form. Either form of a column's name says
/// what it stands for.
fn create_table(resource: &Resource, naming: Naming, server: &str) -> String {
    let mut sql = format!("CREATE FOREIGN TABLE {} (", resource.name);
    for made in resource.columns {
        plain_column(&mut sql, &naming.of(made), made.column_type.sql());
    }
    write!(sql, "\n) SERVER {server} OPTIONS (resource '{}')", resource.name).expect("a String takes all");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_quote_columns_and_name_the_resource() {
        let resource = Resource::get("datapoints").unwrap();
        let sql = create_table(resource, Naming::SnakeCase, "\"my server\"");
        assert!(sql.starts_with("CREATE FOREIGN TABLE datapoints (\n  \"id\" bigint,"), "{sql}");
        assert!(sql.contains("\n  \"timestamp\" timestamp with time zone,"), "{sql}");
        assert!(sql.ends_with(") SERVER \"my server\" OPTIONS (resource 'datapoints')"), "{sql}");
        let sql = create_table(resource, Naming::CamelCase, "cdf");
        assert!(sql.contains("\n  \"instanceExternalId\" text,\n  \"timestamp\" timestamp"), "{sql}");
    }

    #[test]
    fn names_are_cut_and_stay_apart() {
        let long = "ä".repeat(40);
        let names = unique([&*long, &*long, "key", "a"].into_iter(), &["key"]);
        assert_eq!(names, ["ä".repeat(31), format!("{}_", "ä".repeat(31)), "key_".into(), "a".into()]);
        let names = unique(["xmin", "xmin_", "a", "a", "a_", "a"].into_iter(), &SYSTEM_COLUMNS);
        assert_eq!(names, ["xmin_2", "xmin_", "a", "a_2", "a_", "a_3"]);
    }
}
