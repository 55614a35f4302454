//! The tables of registered roles.

use serde_json::{json, Map, Value};
use tokio_postgres::{Row, Transaction};

use super::Lease;
use crate::error::ApiError;

/// The kind of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BuiltIn,
    Raw,
    Nodes,
    Edges,
}

/// A foreign table of a role.
#[derive(Debug)]
pub struct Table {
    pub id: u32,
    pub schema: String,
    pub name: String,
    pub kind: Kind,
    /// Schema and name of the foreign table behind it, if a partitioned table stands in front of that.
    pub behind: Option<(String, String)>,
    /// The options of the foreign table.
    pub options: Map<String, Value>,
    /// Names and types in CDF's API, in order.
    pub columns: Vec<(String, String)>,
}

/// A table to create.
pub enum New {
    Raw { name: String, database: String, table: String, columns: Value, primary_key: Option<String> },
    View { name: String, space: String, external_id: String, version: Option<String> },
}

impl New {
    /// Returns its name.
    pub fn name(&self) -> &str {
        match self {
            New::Raw { name, .. } | New::View { name, .. } => name,
        }
    }
}

const TABLES: &str = "SELECT c.oid, n.nspname::text, c.relname::text, \
     (SELECT json_object_agg(o.option_name, o.option_value) FROM pg_options_to_table(t.ftoptions) o)::text, \
     (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL)) ORDER BY a.attnum) FROM pg_attribute a \
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text, \
     b.nspname::text, p.relname::text \
     FROM {ext}.cdf_credentials r JOIN pg_namespace n ON n.nspname = r.schema JOIN pg_class c ON c.relnamespace = n.oid \
     LEFT JOIN pg_inherits i ON c.relkind = 'p' AND i.inhparent = c.oid LEFT JOIN pg_class p ON p.oid = i.inhrelid \
     LEFT JOIN pg_namespace b ON b.oid = p.relnamespace \
     JOIN pg_foreign_table t ON t.ftrelid = coalesce(p.oid, c.oid) JOIN pg_foreign_server s ON s.oid = t.ftserver AND s.srvname = r.server \
     WHERE r.username = $1 AND has_table_privilege(r.username::name, c.oid, 'SELECT') ORDER BY c.relname COLLATE \"C\", c.oid";

/// Returns all tables of a role. The custom ones come first: the official SDK takes the type of a list's first item for
/// the type of all.
pub async fn list(lease: &mut Lease<'_>, username: &str) -> Result<Vec<Table>, ApiError> {
    let query = lease.sql(TABLES);
    let transaction = lease.client().transaction().await?;
    read(&transaction, &query, username).await
}

async fn read(transaction: &Transaction<'_>, query: &str, username: &str) -> Result<Vec<Table>, ApiError> {
    let rows = transaction.query(query, &[&username]).await?;
    let mut tables = rows.iter().map(table).collect::<Result<Vec<Table>, ApiError>>()?;
    tables.sort_by_key(|table| table.kind == Kind::BuiltIn);
    Ok(tables)
}

fn table(row: &Row) -> Result<Table, ApiError> {
    let unreadable = |error: serde_json::Error| ApiError::internal(format!("a table's description: {error}"));
    let options: Option<String> = row.try_get(3)?;
    let columns: Option<String> = row.try_get(4)?;
    let options: Map<String, Value> =
        serde_json::from_str(options.as_deref().unwrap_or("{}")).map_err(unreadable)?;
    let columns: Vec<(String, String)> =
        serde_json::from_str(columns.as_deref().unwrap_or("[]")).map_err(unreadable)?;
    let has = |names: [&str; 2]| columns.iter().any(|(name, _)| names.contains(&name.as_str()));
    let kind = match options.get("resource").and_then(Value::as_str) {
        Some("raw_rows") if options.contains_key("database") => Kind::Raw,
        Some("view") if has(["start_node_space", "startNodeSpace"]) => Kind::Edges,
        Some("view") => Kind::Nodes,
        _ => Kind::BuiltIn,
    };
    let columns = columns.into_iter().map(|(name, sql)| (name, api_type(&sql))).collect();
    let behind: (Option<String>, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(Table {
        id: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        kind,
        behind: behind.0.zip(behind.1),
        options,
        columns,
    })
}

/// Returns CDF's name for an SQL type.
fn api_type(sql: &str) -> String {
    let (element, array) = match sql.strip_suffix("[]") {
        Some(element) => (element, "[]"),
        None => (sql, ""),
    };
    let name = match element {
        "character varying" => "VARCHAR",
        "boolean" => "BOOL",
        "bigint" | "integer" | "smallint" => "BIGINT",
        "double precision" | "numeric" => "DOUBLE PRECISION",
        "real" => "REAL",
        "json" | "jsonb" => "JSON",
        "bytea" if array.is_empty() => "BYTEA",
        kind if array.is_empty() && (kind.starts_with("timestamp") || kind == "date") => "TIMESTAMPTZ",
        _ => "TEXT",
    };
    format!("{name}{array}")
}

/// Creates all of these tables, or none, and returns them as they are then.
pub async fn create(lease: &mut Lease<'_>, username: &str, new: &[New]) -> Result<Vec<Table>, ApiError> {
    let raw = lease.sql("SELECT {ext}.cdf_create_raw_table($1, $2, $3, $4, $5::text::json, $6)::oid");
    let view = lease.sql("SELECT {ext}.cdf_create_view_table($1, $2, $3, $4, $5)::oid");
    let query = lease.sql(TABLES);
    let transaction = lease.client().transaction().await?;
    let mut made: Vec<u32> = Vec::new();
    for table in new {
        let row = match table {
            New::Raw { name, database, table, columns, primary_key } => {
                let key = primary_key.as_deref().unwrap_or("key");
                let columns = columns.to_string();
                transaction.query_one(&raw, &[&username, name, database, table, &columns, &key]).await
            }
            New::View { name, space, external_id, version } => {
                transaction.query_one(&view, &[&username, name, space, external_id, version]).await
            }
        };
        let row = row.map_err(|error| {
            let mut refused = ApiError::from(error);
            if refused.status == axum::http::StatusCode::CONFLICT {
                refused.duplicated = vec![json!({ "tablename": table.name() })];
            }
            refused
        })?;
        made.push(row.try_get(0)?);
    }
    let mut tables = read(&transaction, &query, username).await?;
    transaction.commit().await?;
    tables.retain(|table| made.contains(&table.id));
    tables.sort_by_key(|table| made.iter().position(|id| *id == table.id));
    Ok(tables)
}

/// Drops these tables. They hold no rows, so nothing in CDF is deleted.
pub async fn drop(lease: &mut Lease<'_>, tables: &[&Table]) -> Result<(), ApiError> {
    let transaction = lease.client().transaction().await?;
    for table in tables {
        let drop = match table.behind {
            Some(_) => "DROP TABLE %I.%I",
            None => "DROP FOREIGN TABLE %I.%I",
        };
        statement(&transaction, drop, &[&table.schema, &table.name]).await?;
    }
    Ok(transaction.commit().await?)
}

/// A new name for a table, and more columns.
pub struct Change<'a> {
    pub table: &'a Table,
    pub name: Option<String>,
    pub add: Vec<String>,
}

/// Makes all of these changes, or none.
pub async fn change(lease: &mut Lease<'_>, changes: &[Change<'_>]) -> Result<(), ApiError> {
    let transaction = lease.client().transaction().await?;
    for Change { table, name, add } in changes {
        for column in add {
            let parts = [&table.schema, &table.name, column];
            statement(&transaction, "ALTER TABLE %I.%I ADD COLUMN %I text", &parts).await?;
        }
        if let Some(name) = name.as_ref().filter(|name| **name != table.name) {
            let parts = [&table.schema, &table.name, name];
            statement(&transaction, "ALTER TABLE %I.%I RENAME TO %I", &parts).await?;
            if let Some((schema, behind)) = &table.behind {
                statement(&transaction, "ALTER TABLE %I.%I RENAME TO %I", &[schema, behind, name]).await?;
            }
        }
    }
    Ok(transaction.commit().await?)
}

/// Runs a statement that contains names, which PostgreSQL itself quotes.
async fn statement(transaction: &Transaction<'_>, format: &str, names: &[&String]) -> Result<(), ApiError> {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let text: String = transaction
        .query_one("SELECT format($1, VARIADIC $2::text[])", &[&format, &names])
        .await?
        .try_get(0)?;
    Ok(transaction.batch_execute(&text).await?)
}

#[cfg(test)]
mod tests {
    use super::api_type;

    #[test]
    fn types_are_those_of_the_api() {
        for (sql, api) in [
            ("text", "TEXT"),
            ("bigint[]", "BIGINT[]"),
            ("timestamp with time zone", "TIMESTAMPTZ"),
            ("timestamp without time zone[]", "TEXT[]"),
            ("jsonb", "JSON"),
            ("character varying[]", "VARCHAR[]"),
            ("bytea", "BYTEA"),
            ("uuid", "TEXT"),
        ] {
            assert_eq!(api_type(sql), api, "{sql}");
        }
    }
}
