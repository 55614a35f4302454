//! All options: the object that each is set on, its values, and what it means for secrets.

use crate::cdf::http::credentials::TokenAuth;
use crate::cdf::resource::{raw, Resource};
use crate::cdf::table::{NullHandling, OnConflict, OnUnfit};

/// What an option is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Server,
    UserMapping,
    Table,
    Column,
}

impl Holder {
    pub fn noun(self) -> &'static str {
        match self {
            Holder::Server => "a server",
            Holder::UserMapping => "a user mapping",
            Holder::Table => "a foreign table",
            Holder::Column => "a column",
        }
    }
}

/// What an option takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    Text,
    /// A text of at most this many characters.
    Name(usize),
    Bool,
    /// A URL; `query`: whether it may have one.
    Url {
        query: bool,
    },
    OneOf(&'static [&'static str]),
    Resource,
    /// The absolute path of a file on the server's machine.
    Path,
    /// A whole number above 0.
    Number,
    /// The address of a proxy.
    Proxy,
}

/// Which tables have an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    All,
    Raw,
    Datapoints,
    View,
}

impl Tables {
    pub fn include(self, resource: &Resource) -> bool {
        match self {
            Tables::All => true,
            Tables::Raw => resource.is_in_raw_tables(),
            Tables::Datapoints => resource.holds_points(),
            Tables::View => resource.is_behind_view(),
        }
    }
}

#[derive(Debug)]
pub struct Descriptor {
    pub name: &'static str,
    pub holders: &'static [Holder],
    pub takes: Takes,
    pub required: bool,
    /// Never shown.
    pub secret: bool,
    /// It decides where secrets and tokens are sent, or which way they go.
    pub steers: bool,
    /// Only superusers may set it.
    pub superuser: bool,
    pub tables: Tables,
}

impl Descriptor {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn superuser(mut self) -> Self {
        self.superuser = true;
        self
    }

    const fn steers(mut self) -> Self {
        self.steers = true;
        self
    }

    const fn only(mut self, tables: Tables) -> Self {
        self.tables = tables;
        self
    }
}

const fn option(name: &'static str, holders: &'static [Holder], takes: Takes) -> Descriptor {
    Descriptor {
        name,
        holders,
        takes,
        required: false,
        secret: false,
        steers: false,
        superuser: false,
        tables: Tables::All,
    }
}

/// All options, in the order in which errors list them.
pub static OPTIONS: &[Descriptor] = &[
    option("base_url", &[Holder::Server], Takes::Url { query: false }).required().steers(),
    option("ca_file", &[Holder::Server], Takes::Path).superuser(),
    option("proxy", &[Holder::Server], Takes::Proxy).steers(),
    option("project", &[Holder::UserMapping], Takes::Text).required(),
    option("token_url", &[Holder::UserMapping], Takes::Url { query: true }).steers(),
    option("client_id", &[Holder::UserMapping], Takes::Text),
    option("client_secret", &[Holder::UserMapping], Takes::Text).secret(),
    option("scope", &[Holder::UserMapping], Takes::Text),
    option("audience", &[Holder::UserMapping], Takes::Text),
    option("token_auth", &[Holder::UserMapping], Takes::OneOf(TokenAuth::NAMES)),
    option(ASSERTION_FILE, &[Holder::UserMapping], Takes::Path).superuser(),
    option("session_id", &[Holder::UserMapping], Takes::Number),
    option("session_key", &[Holder::UserMapping], Takes::Text).secret(),
    option("resource", &[Holder::Table], Takes::Resource).required(),
    option("database", &[Holder::Table], Takes::Name(raw::DATABASE_CHARS)).only(Tables::Raw),
    option("table", &[Holder::Table], Takes::Name(raw::TABLE_CHARS)).only(Tables::Raw),
    option("primary_key", &[Holder::Table], Takes::Text).only(Tables::Raw),
    option("space", &[Holder::Table], Takes::Text).only(Tables::View),
    option("external_id", &[Holder::Table], Takes::Text).only(Tables::View),
    option("version", &[Holder::Table], Takes::Text).only(Tables::View),
    option("on_conflict", &[Holder::Table, Holder::Server], Takes::OneOf(OnConflict::NAMES)),
    option("null_handling", &[Holder::Table, Holder::Server], Takes::OneOf(NullHandling::NAMES)),
    option("create_missing", &[Holder::Table], Takes::Bool).only(Tables::Datapoints),
    option("truncatable", &[Holder::Table], Takes::Bool),
    option("updatable", &[Holder::Table, Holder::Server], Takes::Bool),
    option("on_unfit", &[Holder::Column, Holder::Table, Holder::Server], Takes::OneOf(OnUnfit::NAMES)),
    option("name", &[Holder::Column], Takes::Text),
];

/// Returns the names of the options that hold a secret.
pub fn secrets() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|option| option.secret).map(|option| option.name)
}

/// Returns the names of a user mapping's options that prove the sender's identity: secrets, and a file that holds one.
pub fn proofs() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|option| option.secret || option.name == ASSERTION_FILE).map(|option| option.name)
}

/// Whether only superusers may set the option of this name.
pub fn is_for_superusers(name: &str) -> bool {
    OPTIONS.iter().any(|option| option.name == name && option.superuser)
}

/// The option that names a file with an assertion, used instead of a secret.
pub const ASSERTION_FILE: &str = "client_assertion_file";

/// Returns the names of a server's options that decide where tokens and rows are sent, and which way.
pub fn steering_server() -> impl Iterator<Item = &'static str> {
    steering(Holder::Server)
}

/// Returns the names of a user mapping's options that decide where its secrets are sent.
pub fn steering_mapping() -> impl Iterator<Item = &'static str> {
    steering(Holder::UserMapping)
}

fn steering(holder: Holder) -> impl Iterator<Item = &'static str> {
    let of_holder = move |option: &&Descriptor| option.steers && option.holders.contains(&holder);
    OPTIONS.iter().filter(of_holder).map(|option| option.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_a_holder() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..at].iter().all(|other| other.name != option.name), "{}", option.name);
            assert!(!option.holders.is_empty());
        }
    }
}
