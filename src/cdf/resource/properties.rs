//! What CDF calls the properties that it names things by, in requests and in answers.

/// The internal id of an item.
pub const ID: &str = "id";
/// The external id of an item; of an instance it is the one within its space.
pub const EXTERNAL_ID: &str = "externalId";
/// The space of an instance.
pub const SPACE: &str = "space";
