//! Seals and opens the secrets of user mappings, with the keys of the file that `cdf_fdw.secret_key_file` names.
//!
//! The file is read and checked each time, and its keys are wiped right after use.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;
use secrecy::{ExposeSecret, SecretString};

use crate::cdf::error::{Error, Kind};
use crate::cdf::small_file;
use crate::pg::settings;
use crate::pg::text::from_server;
use crate::seal::{self, SealKeys, SecretPlace};

/// The most bytes of a key file.
const LONGEST: usize = 64 << 10;

/// The name of the setting.
const SETTING: &str = "cdf_fdw.secret_key_file";

/// How to make a key file.
pub const HOW_TO_MAKE: &str =
    "Make the file with: (umask 077; openssl rand -hex 32 > FILE), as the operating system's user of the \
                               PostgreSQL server, outside of the data directory.";

/// The user mapping that holds a secret.
#[derive(Debug, Clone)]
pub struct SecretHolder {
    pub server: String,
    /// None: PUBLIC.
    role_name: Option<String>,
}

impl SecretHolder {
    /// Makes it; `role` is InvalidOid for PUBLIC.
    pub fn new(server: String, role: pg_sys::Oid) -> SecretHolder {
        // SAFETY: the name is a copy in the current memory context, or null for no role.
        let role_name = unsafe {
            let name = pg_sys::GetUserNameFromId(role, true);
            (!name.is_null()).then(|| from_server(name))
        };
        SecretHolder { server, role_name }
    }

    pub fn role_name(&self) -> Option<&str> {
        self.role_name.as_deref()
    }

    fn place<'a>(&'a self, option: &'a str) -> SecretPlace<'a> {
        SecretPlace { server: &self.server, role: self.role_name.as_deref(), option }
    }

    /// Returns how errors name one of its secrets.
    fn secret(&self, option: &str) -> String {
        let role = self.role_name().map_or("PUBLIC".into(), quote_identifier);
        format!("the {option} of role {role} on server {}", quote_identifier(&self.server))
    }
}

/// Reads the keys. None: no file is set.
///
/// # Errors
/// Why the file cannot be used.
fn keys() -> Result<Option<SealKeys>, String> {
    let Some(path) = settings::secret_key_file() else { return Ok(None) };
    if !path.is_absolute() {
        return Err("it is not named by an absolute path".into());
    }
    // Resolve a link first, so that its target is checked and opened.
    let path = std::fs::canonicalize(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => "the operating system's user of the server cannot reach it".to_owned(),
    })?;
    // SAFETY: the server's own variable, set before any backend starts.
    let data = Path::new(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(pg_sys::DataDir) }.to_bytes()));
    if path.starts_with(std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned())) {
        return Err("it is in the data directory, and so in every copy of that".into());
    }
    let (content, file) = small_file::read(&path, LONGEST)?;
    // SAFETY: cannot fail.
    if file.uid() != unsafe { libc::geteuid() } {
        return Err("it does not belong to the operating system's user of the server".into());
    }
    let mode = file.mode() & 0o7777;
    if !matches!(mode, 0o600 | 0o400) {
        return Err(format!("its mode is {mode:04o}, and has to be 0600 or 0400"));
    }
    SealKeys::read(&content).map(Some)
}

/// Returns the keys with which secrets are sealed. None: they are stored as they are.
///
/// # Errors
/// `InvalidValue` if the file cannot be used.
pub fn keys_to_seal() -> Result<Option<SealKeys>, Error> {
    keys().map_err(|why| {
        Error::new(Kind::InvalidValue, format!("the file that {SETTING} names cannot be used: {why}"))
            .hint(HOW_TO_MAKE)
    })
}

/// Seals a secret for its mapping.
///
/// # Errors
/// `Internal`.
pub fn seal(
    keys: &SealKeys,
    secret: &SecretString,
    mapping: &SecretHolder,
    option: &str,
) -> Result<String, Error> {
    keys.seal(secret, &mapping.place(option))
        .map_err(|_| Error::internal("the system cannot seal a secret: it has no random numbers"))
}

/// Returns the stored form of a mapping's secret: plain, or sealed if there is a key.
///
/// # Errors
/// As [`keys_to_seal`] and [`seal`].
pub fn stored(secret: &SecretString, mapping: &SecretHolder, option: &str) -> Result<String, Error> {
    match keys_to_seal()? {
        Some(keys) => seal(&keys, secret, mapping, option),
        None => Ok(secret.expose_secret().to_owned()),
    }
}

/// Opens a secret of a mapping, whether it is sealed or not.
///
/// # Errors
/// `NotAuthenticated` if it cannot be opened.
pub fn open(stored: &str, mapping: &SecretHolder, option: &str) -> Result<SecretString, Error> {
    if !seal::is_sealed(stored) {
        return Ok(SecretString::from(stored.to_owned()));
    }
    let keys = match keys() {
        Ok(Some(keys)) => keys,
        Ok(None) => return Err(no_key(mapping, option, &format!("{SETTING} is not set"))),
        Err(why) => {
            let why = format!("the file that {SETTING} names cannot be used: {why}");
            return Err(no_key(mapping, option, &why));
        }
    };
    open_with(&keys, stored, mapping, option)
}

/// As [`open`], for a sealed secret.
pub fn open_with(
    keys: &SealKeys,
    stored: &str,
    mapping: &SecretHolder,
    option: &str,
) -> Result<SecretString, Error> {
    keys.open(stored, &mapping.place(option)).map_err(|error| match error {
        seal::SealError::NoKey => no_key(
            mapping,
            option,
            &format!("the file that {SETTING} names does not have the key that it is sealed under"),
        ),
        seal::SealError::Misplaced => {
            let what = mapping.secret(option);
            Error::new(
                Kind::NotAuthenticated,
                format!("{what} cannot be opened: it was sealed for another server or role, or was changed"),
            )
            .detail("A sealed secret is bound to the names that server and role had when it was sealed.")
            .hint(format!("Where one of them was renamed, rename it back. Otherwise {GIVE_IT_AGAIN}"))
        }
        seal::SealError::Version | seal::SealError::Form | seal::SealError::Cipher => {
            let what = mapping.secret(option);
            Error::new(Kind::NotAuthenticated, format!("{what} is sealed in a form that cannot be opened"))
                .hint(format!("Use the version of cdf_fdw that has sealed it, or {GIVE_IT_AGAIN}"))
        }
    })
}

const GIVE_IT_AGAIN: &str = "give the secret again, with cdf_update_credentials or ALTER USER MAPPING.";

fn no_key(mapping: &SecretHolder, option: &str, why: &str) -> Error {
    let what = mapping.secret(option);
    Error::new(Kind::NotAuthenticated, format!("{what} is sealed, and {why}")).hint(format!(
        "Bring the file with the key here that has sealed it, and have {SETTING} name it. Or {GIVE_IT_AGAIN}"
    ))
}
