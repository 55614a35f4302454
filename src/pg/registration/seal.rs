//! cdf_seal_secrets: seals secrets that are stored plain or under an older key.

use pgrx::prelude::*;

use super::commands;
use super::function::sql_function;
use crate::cdf::error::{Error, Kind};
use crate::pg::ddl::sealing::{self, SecretHolder, HOW_TO_MAKE};
use crate::pg::ddl::{options, trust};
use crate::pg::errors::raise_as;
use crate::pg::ours;
use crate::pg::text::from_server;
use crate::seal::is_sealed;

sql_function!(
    /// Seals the secrets of all user mappings under the first key, and counts them.
    cdf_seal_secrets,
    pg_finfo_cdf_seal_secrets,
    |call| {
        call.writes();
        seal().map(pg_sys::Datum::from)
    }
);

fn seal() -> Result<i64, Error> {
    let caller = commands::caller();
    if !commands::is_superuser(caller) {
        return Err(Error::new(Kind::Forbidden, "permission denied to seal secrets")
            .hint("Only superusers may seal the secrets of all roles."));
    }
    let Some(keys) = sealing::keys_to_seal()? else {
        raise_as(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::new(
                Kind::InvalidValue,
                "secrets cannot be sealed without a key: cdf_fdw.secret_key_file is not set",
            )
            .hint(HOW_TO_MAKE),
        );
    };
    let mut count = 0;
    // SAFETY: called within a statement, with the catalogs at hand.
    for (server, role) in unsafe { trust::mappings() } {
        // SAFETY: a mapping has a server, and the server a wrapper.
        let name = unsafe {
            let server = &*pg_sys::GetForeignServer(server);
            if !ours::is_wrapper(server.fdwid) {
                continue;
            }
            from_server(server.servername)
        };
        let Some((_, stored)) = options::user_mapping(server, role) else { continue };
        let mapping = SecretHolder::new(name, role);
        let mut values = Vec::new();
        for option in options::secrets() {
            let Some(value) = stored.get(option) else { continue };
            let secret = if is_sealed(value) {
                // A secret that cannot be opened now is an error, and is not left for later.
                let secret = sealing::open_with(&keys, value, &mapping, option)?;
                if keys.is_current(value) {
                    continue;
                }
                secret
            } else {
                value.to_owned().into()
            };
            values.push((option, Some(sealing::seal(&keys, &secret, &mapping, option)?)));
        }
        if !values.is_empty() {
            commands::set_options(&mapping, caller, Some(&stored), &values);
            count += values.len() as i64;
        }
    }
    Ok(count)
}
