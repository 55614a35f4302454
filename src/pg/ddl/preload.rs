//! The libraries that a role's sessions preload.

use pgrx::pg_sys::AsPgCStr;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::cdf::error::Error;
use crate::pg::list::pointers;
use crate::pg::registration::commands::spi_error;
use crate::pg::text::from_server;

/// Returns what a role's sessions have to preload in this database, as a list in SQL form; None if they preload this
/// library already, or if the caller may not set it.
pub fn wanted(username: &str) -> Result<Option<String>, Error> {
    let listed = |names: Vec<String>| names.iter().map(quote_literal).collect::<Vec<_>>().join(", ");
    Ok(wanted_names(username)?.map(listed))
}

/// Whether a setting that a role had is the one that registration would give it.
pub fn was_wanted(username: &str, setting: &str) -> Result<bool, Error> {
    Ok(wanted_names(username)?.is_some_and(|wanted| wanted == names(setting)))
}

/// As [`wanted`], as names. If the library is not preloaded, the first statement of a session is planned before it is
/// loaded: an ON CONFLICT would look for a unique index, and a secret would be logged.
fn wanted_names(username: &str) -> Result<Option<Vec<String>>, Error> {
    // SAFETY: reads the rights of the session's role.
    if unsafe { !pg_sys::superuser() } {
        return Ok(None);
    }
    // SAFETY: the setting exists in every version; its text is NUL-terminated.
    let shared =
        unsafe { from_server(pg_sys::GetConfigOption(c"shared_preload_libraries".as_ptr(), false, false)) };
    let session = names(&setting_of(username)?);
    let is_ours = |name: &String| is_this_library(name);
    if names(&shared).iter().any(is_ours) || session.iter().any(is_ours) {
        return Ok(None);
    }
    Ok(Some(session.into_iter().chain(["cdf_fdw".to_owned()]).collect()))
}

/// Returns the setting that a session of the role would have: what was set for it or for all roles, else the
/// configuration. The caller's own session may have another one.
fn setting_of(username: &str) -> Result<String, Error> {
    let query = "SELECT coalesce( \
         (SELECT substr(entry, length('session_preload_libraries=') + 1) \
          FROM pg_db_role_setting s, unnest(s.setconfig) entry, pg_roles r, pg_database d \
          WHERE entry LIKE 'session\\_preload\\_libraries=%' AND r.rolname = $1 AND d.datname = current_database() \
          AND s.setrole IN (r.oid, 0) AND s.setdatabase IN (d.oid, 0) \
          ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1), \
         (SELECT setting FROM pg_settings WHERE name = 'session_preload_libraries' \
          AND source NOT IN ('database', 'user', 'database user', 'global', 'client', 'session')), \
         (SELECT setting FROM pg_file_settings WHERE name = 'session_preload_libraries' AND applied \
          ORDER BY seqno DESC LIMIT 1), '')";
    let setting = Spi::connect(|client| client.select(query, Some(1), &[username.into()])?.first().get_one());
    Ok(setting.map_err(spi_error)?.unwrap_or_default())
}

/// Parses a list of libraries as PostgreSQL does. PostgreSQL loads nothing from a list that it cannot parse.
pub fn names(setting: &str) -> Vec<String> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the text is a copy that the parser changes and the names point into; they are NUL-terminated.
    unsafe {
        if !pg_sys::SplitDirectoriesString(setting.as_pg_cstr(), b',' as _, &mut list) {
            return Vec::new();
        }
        let names = pointers::<std::ffi::c_char>(list).iter().map(|name| from_server(*name));
        names.filter(|name| !name.is_empty()).collect()
    }
}

/// Whether a library's name, with or without a directory, is this one's.
fn is_this_library(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.strip_suffix(".so").unwrap_or(file) == "cdf_fdw"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_library_is_known_by_its_file() {
        for name in ["cdf_fdw", "$libdir/cdf_fdw", "/usr/lib/cdf_fdw.so"] {
            assert!(is_this_library(name), "{name}");
        }
        for name in ["", "my_cdf_fdw", "cdf_fdw2", "cdf_fdw/other", "$libdir/cdf_fdw_tools"] {
            assert!(!is_this_library(name), "{name}");
        }
    }
}
