//! What a load needs besides its rows, where nothing is to be sent: for tests, and for `examples/encode_path.rs`.

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::error::Error;
use super::http::connection::Connection;
use super::http::credentials::{CdfSession, Credentials};
use super::resource::Resource;
use super::table::{OnConflict, Table, TableOptions};
use super::writer::Writer;

/// A connection over which nothing is sent.
///
/// # Errors
/// None, as long as its URL is one.
pub fn connection() -> Result<Arc<Connection>, Error> {
    let url = Url::parse("http://127.0.0.1:1").map_err(|error| Error::internal(error.to_string()))?;
    let key = SecretString::from("secret".to_owned());
    let credentials = Credentials::Session(CdfSession { id: 1, key });
    Ok(Arc::new(Connection::new(url, "project".into(), credentials)))
}

/// A table of these columns, with default options. Without a column for its database, a table of RAW rows is a typed one.
///
/// # Errors
/// If there is no such resource, or if the columns do not fit it.
pub fn table(resource: &str, columns: &[&str]) -> Result<Arc<Table>, Error> {
    let mut options = TableOptions::of(Resource::get(resource)?);
    if options.resource.is_in_raw_tables() && !columns.contains(&"db_name") {
        (options.database, options.table) = (Some("database".into()), Some("table".into()));
    }
    Table::with_options(options, columns).map(Arc::new)
}

/// What writes rows of these columns.
///
/// # Errors
/// As for [`table`].
pub fn writer(resource: &str, columns: &[&str], connection: &Arc<Connection>) -> Result<Writer, Error> {
    Writer::new(table(resource, columns)?, connection.clone(), OnConflict::Update, None)
}
