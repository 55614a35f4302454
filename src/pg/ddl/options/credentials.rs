//! Converts the options of a user mapping to credentials, and back.

use pgrx::pg_sys;
use secrecy::SecretString;

use super::stored::Stored;
use super::url::url;
use crate::cdf::error::Error;
use crate::cdf::http::credentials::{CdfSession, Credentials, OidcClient, Proof, TokenAuth};
use crate::cdf::options::errors::missing;
use crate::cdf::options::registry::{Holder, ASSERTION_FILE};
use crate::cdf::options::values::{parse_number, token_auth};

/// Makes credentials from options. `option` returns an option by its name, `secret` one that is a secret.
pub fn credentials(
    option: impl Fn(&str) -> Option<String>,
    secret: impl Fn(&str) -> Result<Option<SecretString>, Error>,
) -> Result<Credentials, Error> {
    let required = |name: &str| option(name).ok_or_else(|| missing(name, Holder::UserMapping.noun()));
    let required_secret = |name: &str| secret(name)?.ok_or_else(|| missing(name, Holder::UserMapping.noun()));
    if let Some(id) = option("session_id") {
        let key = required_secret("session_key")?;
        return Ok(Credentials::Session(CdfSession { id: parse_number("session_id", &id)?, key }));
    }
    let proof = match option(ASSERTION_FILE) {
        Some(path) => Proof::AssertionFile(path.into()),
        None => {
            let way = option("token_auth").map_or(Ok(TokenAuth::default()), |way| token_auth(&way))?;
            Proof::Secret(required_secret("client_secret")?, way)
        }
    };
    Ok(Credentials::Client(OidcClient {
        token_url: url("token_url", &required("token_url")?)?,
        client_id: required("client_id")?,
        proof,
        scope: option("scope"),
        audience: option("audience"),
    }))
}

/// Returns the options that these credentials give a mapping, and those that it must not have. `store` makes the stored
/// form of a secret.
pub fn values(
    credentials: &Credentials,
    store: impl Fn(&str, &SecretString) -> Result<String, Error>,
) -> Result<Vec<(&'static str, Option<String>)>, Error> {
    let client = match credentials {
        Credentials::Client(client) => Some(client),
        Credentials::Session(_) => None,
    };
    let session = match credentials {
        Credentials::Session(session) => Some(session),
        Credentials::Client(_) => None,
    };
    let (secret, way, file) = match client.map(|client| &client.proof) {
        Some(Proof::Secret(secret, way)) => (Some(secret), Some(*way), None),
        Some(Proof::AssertionFile(path)) => (None, None, Some(path.to_string_lossy().into_owned())),
        None => (None, None, None),
    };
    let stored =
        |name: &str, secret: Option<&SecretString>| secret.map(|secret| store(name, secret)).transpose();
    Ok(vec![
        ("token_url", client.map(|client| client.token_url.as_str().to_owned())),
        ("client_id", client.map(|client| client.client_id.clone())),
        ("client_secret", stored("client_secret", secret)?),
        ("scope", client.and_then(|client| client.scope.clone())),
        ("audience", client.and_then(|client| client.audience.clone())),
        ("token_auth", way.filter(|way| *way != TokenAuth::default()).map(|way| way.name().to_owned())),
        (ASSERTION_FILE, file),
        ("session_id", session.map(|session| session.id.to_string())),
        ("session_key", stored("session_key", session.map(|session| &session.key))?),
    ])
}

/// Returns the OID and options of the mapping of exactly this role (InvalidOid: PUBLIC) on a server.
pub fn user_mapping(server: pg_sys::Oid, user: pg_sys::Oid) -> Option<(pg_sys::Oid, Stored)> {
    // SAFETY: catalog look-ups. GetUserMapping raises an error if it finds none, and falls back to PUBLIC; the look-up
    // before it excludes both.
    unsafe {
        let exists = pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as _,
            user.into(),
            server.into(),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        );
        exists.then(|| {
            let mapping = pg_sys::GetUserMapping(user, server);
            ((*mapping).umid, Stored::read((*mapping).options))
        })
    }
}
