//! The options of a user mapping: the credentials that they come to.

use pgrx::pg_sys;
use secrecy::SecretString;

use super::registry::Holder;
use super::stored::Stored;
use super::url::url;
use crate::cdf::error::Error;
use crate::cdf::http::oidc::Credentials;

/// The credentials of a user mapping.
pub fn credentials(mapping: &Stored) -> Result<Credentials, Error> {
    let required = |name| mapping.required(name, Holder::UserMapping);
    Ok(Credentials {
        token_url: url("token_url", required("token_url")?)?,
        client_id: required("client_id")?.to_owned(),
        client_secret: SecretString::from(required("client_secret")?.to_owned()),
        scope: mapping.text("scope"),
        audience: mapping.text("audience"),
    })
}

/// The mapping of exactly this role (InvalidOid: PUBLIC) on a server: its OID and options.
pub fn user_mapping(server: pg_sys::Oid, user: pg_sys::Oid) -> Option<(pg_sys::Oid, Stored)> {
    // SAFETY: look-ups in the catalogs. GetUserMapping raises an error if it finds none, and falls back to PUBLIC,
    // which the look-up before it excludes.
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
