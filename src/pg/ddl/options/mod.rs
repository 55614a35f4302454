//! The options of servers, user mappings, foreign tables and columns: which exist, what values they take, and what
//! tables and connections are made of them.

pub mod connection;
pub mod credentials;
pub mod errors;
pub mod registry;
pub mod stored;
pub mod table;
pub mod url;
pub mod validator;
pub mod values;

pub use connection::{connection, route};
pub use credentials::{credentials, user_mapping, values};
pub use registry::{is_for_superusers, proofs, secrets, steering_mapping, steering_server};
pub use stored::Stored;
pub use table::{definition_known_here, open_table, table_definition};
pub use url::url;
pub use values::naming;
