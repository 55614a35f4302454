//! cdf_check_credentials: what a registered role may do in CDF, so that a load is not the first to find out.

use pgrx::prelude::*;

use super::commands::{from_utf8, spi_error, utf8};
use super::facades;
use super::function::{sql_function, FunctionCall, ResultValue};
use super::inspect;
use super::record::{self, Registration};
use super::update::Held;
use crate::cdf::capability::{granted, Need};
use crate::cdf::error::Error;
use crate::cdf::http::client::Inspection;
use crate::cdf::http::credentials::Credentials;
use crate::cdf::resource::Resource;

sql_function!(
    /// Returns rows about the token, the project, and each right that each table needs.
    cdf_check_credentials,
    pg_finfo_cdf_check_credentials,
    |call| call.rows(&check(call)?)
);

/// The columns subject, item, needed, ok and message.
type Row = [ResultValue; 5];

fn row(subject: &str, item: &str, needed: Option<&str>, ok: bool, message: String) -> Row {
    let text = |text: &str| ResultValue::Text(Some(text.to_owned()));
    let needed = ResultValue::Text(needed.map(str::to_owned));
    [text(subject), text(item), needed, ResultValue::Flag(ok), ResultValue::Text(Some(message))]
}

/// Returns all parts of an error as one text.
fn told(error: &Error) -> String {
    let parts = std::iter::once(error.headline()).chain(error.details()).chain(error.hint.clone());
    parts.collect::<Vec<_>>().join(" ")
}

fn check(call: &FunctionCall) -> Result<Vec<Row>, Error> {
    let username = call.required(0, "username")?;
    let (role, registrations) = record::find(&username)?;
    let mut rows = Vec::new();
    for of_server in registrations.chunk_by(|one, next| one.server == next.server) {
        let held = Held::read(&username, role, &of_server[0])?;
        let (project, id) = (held.project(|_| None)?, held.id());
        // A secret that cannot be opened is reported like a refused one.
        let credentials = held.credentials(|_| None);
        let holder = credentials.as_ref().map_or_else(|_| format!("client \"{id}\""), Credentials::holder);
        let inspection = match credentials {
            Ok(credentials) => inspect::inspect(&held.base_url, &project, &credentials, held.route)?,
            Err(error) => Err(error),
        };
        let inspection = match inspection {
            Ok(inspection) => {
                rows.push(row("token", &id, None, true, format!("subject: {}", inspection.subject)));
                Some(inspection)
            }
            Err(error) => {
                rows.push(row("token", &id, None, false, told(&error)));
                None
            }
        };
        let in_project = match &inspection {
            None => Err("not known without a token".to_owned()),
            Some(inspection) => {
                inspect::check_project(inspection, &project, &holder).map_err(|error| told(&error))
            }
        };
        let message = in_project.as_ref().err().cloned().unwrap_or_else(|| "the token has access".to_owned());
        rows.push(row("project", &project, None, in_project.is_ok(), message));
        for registration in of_server {
            for table in tables(registration)? {
                // Another schema may have a table of the same name.
                let item = match registrations.len() {
                    1 => table.name.clone(),
                    _ => format!("{}.{}", registration.schema, table.name),
                };
                of_table(&mut rows, &table, &item, inspection.as_ref(), &project, &holder);
            }
        }
    }
    Ok(rows)
}

/// Adds the rows about one table.
fn of_table(
    rows: &mut Vec<Row>,
    table: &CheckedTable,
    item: &str,
    inspection: Option<&Inspection>,
    project: &str,
    holder: &str,
) {
    let Ok(resource) = Resource::get(&table.resource) else { return };
    let raw_table = table.database.as_deref().zip(table.table.as_deref());
    for capability in resource.capabilities() {
        let (ok, message) = match inspection {
            None => (false, "not known without a token".to_owned()),
            Some(inspection) => {
                match granted(&inspection.capabilities, project, Need { capability: &capability, raw_table })
                {
                    Some(scope) => (true, format!("scope: {scope}")),
                    None => (
                        false,
                        format!(
                            "the token does not have it: grant {capability} in CDF to a group of {holder}"
                        ),
                    ),
                }
            }
        };
        rows.push(row("capability", item, Some(&capability), ok, message));
    }
}

/// A foreign table of a registration.
struct CheckedTable {
    name: String,
    resource: String,
    database: Option<String>,
    table: Option<String>,
}

fn tables(registration: &Registration) -> Result<Vec<CheckedTable>, Error> {
    let option = |name: &str| {
        format!(
            "convert_to((SELECT option_value FROM pg_options_to_table(t.ftoptions) WHERE option_name = '{name}'), 'UTF8')"
        )
    };
    let query = format!(
        "SELECT convert_to(c.relname::text, 'UTF8'), {}, {}, {} FROM pg_class c \
         LEFT JOIN unnest($3, $4) f(facade, partition) ON f.facade = c.oid \
         JOIN pg_foreign_table t ON t.ftrelid = coalesce(f.partition, c.oid) \
         JOIN pg_foreign_server s ON s.oid = t.ftserver JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE s.srvname = convert_from($1, 'UTF8') AND n.nspname = convert_from($2, 'UTF8') ORDER BY c.relname",
        option("resource"),
        option("database"),
        option("table")
    );
    let (of_them, partitions) = facades::pairs(&facades::of(registration)?);
    let arguments = [
        utf8(&registration.server).into(),
        utf8(&registration.schema).into(),
        of_them.into(),
        partitions.into(),
    ];
    Spi::connect(|client| {
        client
            .select(query.as_str(), None, &arguments)?
            .map(|row| {
                Ok(CheckedTable {
                    name: from_utf8(row.get(1)?).unwrap_or_default(),
                    resource: from_utf8(row.get(2)?).unwrap_or_default(),
                    database: from_utf8(row.get(3)?),
                    table: from_utf8(row.get(4)?),
                })
            })
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)
}
