//! The PostgreSQL commands that registration runs, with the caller's rights.
//!
//! Commands with a secret are passed as parse trees, so that the secret is in no statement text that an error's context, a
//! module that logs or counts statements, or pg_stat_activity could show.

use std::ffi::{c_int, CStr};

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use secrecy::{ExposeSecret, SecretString};

use crate::cdf::error::{Error, Kind};
use crate::cdf::http::credentials::Credentials;
use crate::pg::ddl::options::{self, Stored};
use crate::pg::ddl::sealing::{self, SecretHolder};
use crate::pg::ddl::trust;
use crate::pg::rights;
use crate::pg::text::{from_server, to_palloc, to_server};
use crate::seal;

/// Random bytes of a generated password: 160 bits.
const PASSWORD_BYTES: usize = 20;

/// A new password. It is shown once, and then nowhere.
pub fn new_password() -> Result<SecretString, Error> {
    random_hex(PASSWORD_BYTES).map(SecretString::from)
}

pub fn role_oid(name: &str) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up by a NUL-terminated name.
    let oid = unsafe { pg_sys::get_role_oid(to_palloc(name), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

pub fn current_database() -> String {
    // SAFETY: the name is a copy in the current memory context; the session's database exists.
    unsafe { from_server(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
}

pub fn random_hex(bytes: usize) -> Result<String, Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Error::internal(format!("the system has no random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// PostgreSQL's rule for ALTER ROLE, which would come too late: after the request to CDF, and not at all where the
/// role's settings stay as they are.
pub fn may_administer(caller: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: look-ups of roles in the catalogs.
    unsafe {
        if pg_sys::superuser_arg(caller) {
            return true;
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let administers = pg_sys::has_createrole_privilege(caller);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let administers = pg_sys::has_createrole_privilege(caller) && pg_sys::is_admin_of_role(caller, role);
        administers && !pg_sys::superuser_arg(role)
    }
}

/// Runs `work` with another role's rights, after a check that the caller may have it done. An error ends it, too: the
/// transaction that fails takes its user back.
pub fn as_role<T>(role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0 as c_int);
    // SAFETY: reads and sets variables of the backend. A change that is local to a function is what SECURITY DEFINER does.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
        let result = work();
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

pub fn caller() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The rights with which a caller's mappings of other roles on a server are made, changed and dropped: its own, if the
/// server is its own. PostgreSQL has only the owner map others; whoever has USAGE on a superuser's server may register, so
/// the owner does it for him.
pub fn mapper(server: &str, owner: pg_sys::Oid, caller: pg_sys::Oid) -> Result<pg_sys::Oid, Error> {
    if is_superuser(caller) || owner == caller {
        return Ok(caller);
    }
    let query = "SELECT has_server_privilege($1, convert_from($2, 'UTF8'), 'USAGE')";
    let may_use: Option<bool> = Spi::connect(|client| {
        client.select(query, Some(1), &[caller.into(), utf8(server).into()])?.first().get_one()
    })
    .map_err(spi_error)?;
    if may_use == Some(true) && is_superuser(owner) {
        return Ok(owner);
    }
    Err(Error::new(Kind::Forbidden, format!("permission denied to map roles on server \"{server}\"")).hint(
        format!(
            "Have it granted: GRANT USAGE ON FOREIGN SERVER {} TO {}.",
            quote_identifier(server),
            rights::role_name(caller)
        ),
    ))
}

/// Stores credentials in a role's user mapping, with the rights of `mapper`, and the secret sealed if there is a key. Whether there was one before.
pub fn map_role(
    username: &str,
    server: (&str, pg_sys::Oid),
    mapper: pg_sys::Oid,
    project: &str,
    credentials: &Credentials,
) -> Result<bool, Error> {
    // SAFETY: a look-up by a NUL-terminated name, which raises an error if the role is gone.
    let role = unsafe { pg_sys::get_role_oid(to_palloc(username), false) };
    let stored = options::user_mapping(server.1, role).map(|(_, stored)| stored);
    let mapping = SecretHolder::new(server.0.to_owned(), role);
    let mut values = vec![("project", Some(project.to_owned()))];
    values.extend(options::values(credentials, |name, secret| sealing::stored(secret, &mapping, name))?);
    let texts = values.iter().filter_map(|(_, value)| value.clone()).filter(|text| seal::is_sealed(text));
    trust::storing(texts.collect(), || set_options(&mapping, mapper, stored.as_ref(), &values));
    Ok(stored.is_some())
}

/// Sets these options of a mapping, and drops those without a value. `stored`: the mapping's options, if it exists.
pub fn set_options(
    mapping: &SecretHolder,
    mapper: pg_sys::Oid,
    stored: Option<&Stored>,
    values: &[(&'static str, Option<String>)],
) {
    // SAFETY: the nodes are allocated in the current memory context, with every field set that the statements use.
    unsafe {
        let mut list = std::ptr::null_mut();
        for (name, value) in values {
            let action = match (stored.and_then(|stored| stored.get(name)), value) {
                (Some(_), Some(_)) => pg_sys::DefElemAction::DEFELEM_SET,
                (None, Some(_)) => pg_sys::DefElemAction::DEFELEM_ADD,
                (Some(_), None) => pg_sys::DefElemAction::DEFELEM_DROP,
                (None, None) => continue,
            };
            list = pg_sys::lappend(list, definition(name, value.as_deref(), action).cast());
        }
        if stored.is_some() {
            let mut statement =
                PgBox::<pg_sys::AlterUserMappingStmt>::alloc_node(pg_sys::NodeTag::T_AlterUserMappingStmt);
            statement.user = mapping.role_name().map_or_else(public, role_spec);
            statement.servername = to_palloc(&mapping.server);
            statement.options = list;
            let statement = statement.into_pg().cast();
            as_role(mapper, || run_tree(statement, c"ALTER USER MAPPING"));
        } else {
            let mut statement =
                PgBox::<pg_sys::CreateUserMappingStmt>::alloc_node(pg_sys::NodeTag::T_CreateUserMappingStmt);
            statement.user = mapping.role_name().map_or_else(public, role_spec);
            statement.servername = to_palloc(&mapping.server);
            statement.options = list;
            let statement = statement.into_pg().cast();
            as_role(mapper, || run_tree(statement, c"CREATE USER MAPPING"));
        }
    }
}

/// Sets a role's password, as a SCRAM verifier whatever password_encryption is.
pub fn set_password(username: &str, password: &SecretString) {
    // SAFETY: encrypt_password takes NUL-terminated strings and returns one in the current memory context, where the
    // nodes are allocated, too.
    unsafe {
        let verifier = pg_sys::encrypt_password(
            pg_sys::PasswordType::PASSWORD_TYPE_SCRAM_SHA_256,
            to_palloc(username),
            to_palloc(password.expose_secret()),
        );
        let verifier = CStr::from_ptr(verifier).to_string_lossy();
        let action = pg_sys::DefElemAction::DEFELEM_UNSPEC;
        let mut statement = PgBox::<pg_sys::AlterRoleStmt>::alloc_node(pg_sys::NodeTag::T_AlterRoleStmt);
        statement.role = role_spec(username);
        statement.options =
            pg_sys::lappend(std::ptr::null_mut(), definition("password", Some(&verifier), action).cast());
        statement.action = 1;
        run_tree(statement.into_pg().cast(), c"ALTER ROLE");
    }
}

/// An option of a statement.
fn definition(name: &str, value: Option<&str>, action: pg_sys::DefElemAction::Type) -> *mut pg_sys::DefElem {
    // SAFETY: all parts are allocated in the current memory context.
    unsafe {
        let value = value.map_or(std::ptr::null_mut(), |value| pg_sys::makeString(to_palloc(value)));
        pg_sys::makeDefElemExtended(std::ptr::null_mut(), to_palloc(name), value.cast(), action, -1)
    }
}

fn public() -> *mut pg_sys::RoleSpec {
    // SAFETY: a node of this tag is of this type.
    let mut role = unsafe { PgBox::<pg_sys::RoleSpec>::alloc_node(pg_sys::NodeTag::T_RoleSpec) };
    role.roletype = pg_sys::RoleSpecType::ROLESPEC_PUBLIC;
    role.location = -1;
    role.into_pg()
}

fn role_spec(username: &str) -> *mut pg_sys::RoleSpec {
    // SAFETY: a node of this tag is of this type.
    let mut role = unsafe { PgBox::<pg_sys::RoleSpec>::alloc_node(pg_sys::NodeTag::T_RoleSpec) };
    role.roletype = pg_sys::RoleSpecType::ROLESPEC_CSTRING;
    role.rolename = to_palloc(username);
    role.location = -1;
    role.into_pg()
}

/// Runs a statement given as its parse tree, through the same hooks and event triggers as any. They get `text` for the
/// statement's text.
///
/// # Safety
/// `tree` is the complete parse tree of a utility statement.
unsafe fn run_tree(tree: *mut pg_sys::Node, text: &'static CStr) {
    // SAFETY: the caller's promise; a function runs with an active snapshot, as ProcessUtility expects.
    unsafe {
        let mut planned = PgBox::<pg_sys::PlannedStmt>::alloc_node(pg_sys::NodeTag::T_PlannedStmt);
        planned.commandType = pg_sys::CmdType::CMD_UTILITY;
        planned.utilityStmt = tree;
        planned.stmt_location = -1;
        pg_sys::ProcessUtility(
            planned.into_pg(),
            text.as_ptr(),
            false,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::None_Receiver,
            std::ptr::null_mut(),
        );
        pg_sys::CommandCounterIncrement();
    }
}

pub fn run(sql: &str) -> Result<(), Error> {
    let sql = to_server(sql)?;
    // SAFETY: the statement is NUL-terminated and in the database's encoding; an error in it is an ERROR, which ends the
    // connection with its transaction.
    let code = unsafe {
        pg_sys::SPI_connect();
        let code = pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_finish();
        code
    };
    match code {
        0.. => Ok(()),
        code => Err(Error::internal(format!("cannot run a statement: SPI says {code}"))),
    }
}

/// A text as a parameter of a query, which converts it: `convert_from($1, 'UTF8')`.
pub fn utf8(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// What a query gives as `convert_to(…, 'UTF8')`.
pub fn from_utf8(bytes: Option<Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub fn spi_error(error: spi::Error) -> Error {
    Error::internal(format!("cannot run a statement: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_160_bits() {
        let password = new_password().unwrap();
        assert_eq!(password.expose_secret().len(), 40);
        assert_ne!(password.expose_secret(), new_password().unwrap().expose_secret());
    }
}
