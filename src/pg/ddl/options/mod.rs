//! What the options of servers, user mappings, foreign tables and columns come to: connections, credentials, tables.

pub mod connection;
pub mod credentials;
pub mod stored;
pub mod table;
pub mod url;
pub mod validator;

pub use connection::{connection, route};
pub use credentials::{credentials, user_mapping, values};
pub use stored::Stored;
pub use table::{definition_known_here, open_table, table_definition};
pub use url::url;

pub use crate::cdf::options::registry::{
    is_for_superusers, proofs, secrets, steering_mapping, steering_server,
};
pub use crate::cdf::options::values::naming;
