//! Decides whose objects are trusted, and who may change where the secrets of others are sent.
//!
//! PostgreSQL lets the owner of a server alter it and every user mapping on it. The owner cannot read the options of another
//! role's mapping, but whoever sets the place that a secret is sent to receives the secret.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::options::{self, Stored};
use crate::cdf::error::{Error, Kind};
use crate::pg::catalog;
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::ours;
use crate::pg::redact::statement;
use crate::pg::rights::{is_superuser, role_name};
use crate::pg::text::{from_server, from_server_lossy};
use crate::seal;

static PREVIOUS_HOOK: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// Installs the hook that sees changes of servers. `_PG_init` calls this once.
pub fn init() {
    // SAFETY: the backend has one thread at this point.
    unsafe {
        PREVIOUS_HOOK.get_or_init(|| pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(access_object);
    }
}

/// Checks ALTER USER MAPPING by a role that is no superuser: whoever changes where a secret is sent must also give the
/// secret.
///
/// # Safety
/// `statement` is the tree of a utility statement that is about to run.
pub unsafe fn check_mapping(statement: *mut pg_sys::Node) {
    // SAFETY: the caller's promise; a statement's names are NUL-terminated, and its options are a list of DefElem.
    unsafe {
        if (*statement).type_ != pg_sys::NodeTag::T_AlterUserMappingStmt || is_superuser() {
            return;
        }
        let statement = &*statement.cast::<pg_sys::AlterUserMappingStmt>();
        // PostgreSQL raises the error for what does not exist.
        let Some(server) = pg_sys::GetForeignServerByName(statement.servername, true).as_ref() else {
            return;
        };
        if !ours::is_wrapper(server.fdwid) {
            return;
        }
        let role = match (*statement.user).roletype {
            pg_sys::RoleSpecType::ROLESPEC_PUBLIC => pg_sys::InvalidOid,
            _ => pg_sys::get_rolespec_oid(statement.user, true),
        };
        let Some((_, stored)) = options::user_mapping(server.serverid, role) else { return };
        let given: Vec<(String, Option<String>)> = pointers::<pg_sys::DefElem>(statement.options)
            .iter()
            .map(|option| {
                let value = (!(**option).arg.is_null()).then(|| from_server(pg_sys::defGetString(*option)));
                (from_server((**option).defname), value)
            })
            .collect();
        // A statement may name an option more than once.
        let steered = options::steering_mapping().any(|name| {
            given.iter().any(|(given, value)| given == name && value.as_deref() != stored.get(name))
        });
        // Giving a sealed secret does not prove that one knows it.
        let gives = |name: &str| {
            let is_plain = |value: &String| !seal::is_sealed(value);
            given.iter().any(|(given, value)| given == name && value.as_ref().is_some_and(is_plain))
        };
        let kept = options::proofs().any(|name| stored.get(name).is_some() && !gives(name));
        if steered && kept {
            Err(cannot_steer(role)).or_raise()
        }
    }
}

/// Checks a mapping's options for the validator. If the statement itself has loaded this library, no hook has seen it,
/// so what it changes is unknown. Then no mapping may keep a stored secret and send it to another place.
pub fn check_new_mapping(pairs: &[(&str, &str)]) -> Result<(), Error> {
    if statement::sees_statement() || is_superuser() {
        return Ok(());
    }
    let given = |name: &str| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
    // SAFETY: called within a statement, with the catalogs at hand.
    for (server, role) in unsafe { mappings() } {
        // SAFETY: a mapping has a server; these are catalog look-ups.
        if unsafe { !ours::is_wrapper((*pg_sys::GetForeignServer(server)).fdwid) } {
            continue;
        }
        let Some((_, stored)) = options::user_mapping(server, role) else { continue };
        let same_secret =
            options::secrets().any(|name| given(name).is_some() && given(name) == stored.get(name));
        let steered = options::steering_mapping().any(|name| given(name) != stored.get(name));
        if same_secret && steered {
            return Err(cannot_steer(role).hint(
                "If the statement gives client_secret, run it again: it was not seen, as it had to load cdf_fdw first.",
            ));
        }
    }
    Ok(())
}

/// Refuses options that only superusers may set: each makes the server use a file of its machine.
pub fn check_superuser_options(pairs: &[(&str, &str)]) -> Result<(), Error> {
    match pairs.iter().find(|(name, _)| options::is_for_superusers(name)) {
        Some((name, _)) if !is_superuser() => {
            Err(Error::new(Kind::Forbidden, format!("permission denied to set option \"{name}\""))
                .detail("It names a file of the PostgreSQL server.")
                .hint("Only superusers may set it, and alter what has it."))
        }
        _ => Ok(()),
    }
}

thread_local! {
    /// Sealed texts that the running statement has made itself.
    static SEALED_HERE: RefCell<Vec<String>> = RefCell::default();
}

/// Runs `work`, which may store these sealed texts.
pub fn storing<T>(texts: Vec<String>, work: impl FnOnce() -> T) -> T {
    struct Forgotten;
    impl Drop for Forgotten {
        fn drop(&mut self) {
            SEALED_HERE.with_borrow_mut(Vec::clear);
        }
    }
    // An error unwinds through this frame, and the guard forgets the texts then, too.
    let _forgotten = Forgotten;
    SEALED_HERE.set(texts);
    work()
}

/// Refuses a sealed secret from a role that is no superuser: otherwise whoever can read a sealed text could have it
/// opened and sent to a place of his choice. A stored text may stay in a mapping that sends it to the same place.
pub fn check_sealed(pairs: &[(&str, &str)]) -> Result<(), Error> {
    let given = |name: &str| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
    let mut sealed = options::secrets()
        .filter_map(|name| given(name).map(|value| (name, value)))
        .filter(|(_, value)| seal::is_sealed(value))
        .filter(|(_, value)| !SEALED_HERE.with_borrow(|texts| texts.iter().any(|text| text == value)))
        .peekable();
    if sealed.peek().is_none() || is_superuser() {
        return Ok(());
    }
    let is_stored = |name: &str, value: &str| {
        // SAFETY: called within a statement, with the catalogs at hand; a mapping has its server.
        let mut ours = unsafe { mappings() }
            .into_iter()
            .filter(|(server, _)| unsafe { ours::is_wrapper((*pg_sys::GetForeignServer(*server)).fdwid) });
        ours.any(|(server, role)| {
            options::user_mapping(server, role).is_some_and(|(_, stored)| {
                stored.get(name) == Some(value)
                    && options::steering_mapping().all(|steering| stored.get(steering) == given(steering))
            })
        })
    };
    match sealed.find(|(name, value)| !is_stored(name, value)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::new(Kind::Forbidden, format!("permission denied to give a sealed {name}"))
                .detail("Whoever can read it may not know the secret, and could have it sent elsewhere.")
                .hint("Give the secret itself, or ask a superuser."))
        }
    }
}

/// Says why only superusers can change where a stored secret is sent.
pub fn cannot_steer(role: pg_sys::Oid) -> Error {
    let names: Vec<&str> = options::steering_mapping().collect();
    Error::new(
        Kind::Forbidden,
        format!(
            "permission denied to change {} of the user mapping of {} without its client_secret",
            names.join(", "),
            role_name(role)
        ),
    )
    .detail("The secret that is stored would be sent there.")
    .hint("Set client_secret in the same statement, or ask a superuser.")
}

/// Returns the server and the role (InvalidOid: PUBLIC) of every user mapping.
///
/// # Safety
/// Called within a statement, with the catalogs at hand.
pub unsafe fn mappings() -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    let mut found = Vec::new();
    // SAFETY: the columns are not null, and of type oid.
    unsafe {
        catalog::scan(pg_sys::UserMappingRelationId, std::ptr::null_mut(), |values, _| {
            let column = |number: u32| pg_sys::Oid::from(values[number as usize - 1].value() as u32);
            found.push((
                column(pg_sys::Anum_pg_user_mapping_umserver),
                column(pg_sys::Anum_pg_user_mapping_umuser),
            ));
        });
    }
    found
}

/// The next hook is called without pgrx's guard, which would drop most of an error's fields. This frame holds nothing
/// that would have to be dropped.
unsafe extern "C-unwind" fn access_object(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: PostgreSQL passes an object that it has altered, before the command ends.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_POST_ALTER && class == pg_sys::ForeignServerRelationId {
            check_server(object);
        }
        if let Some(previous) = PREVIOUS_HOOK.get().copied().flatten() {
            previous(access, class, object, part, argument);
        }
    }
}

/// Checks ALTER SERVER by a role that is no superuser: while others have credentials on a server, it must stay where it
/// is.
///
/// # Safety
/// A command that has not ended yet has altered the server.
#[pg_guard]
unsafe extern "C-unwind" fn check_server(server: pg_sys::Oid) {
    // SAFETY: the caller's promise; the catalogs still show the server as it was, and a snapshot that includes the
    // command's own changes shows it as it will be.
    unsafe {
        if is_superuser() {
            return;
        }
        let before = &*pg_sys::GetForeignServer(server);
        if !ours::is_wrapper(before.fdwid) {
            return;
        }
        let stored = Stored::read(before.options);
        let mut after = Stored::read(std::ptr::null_mut());
        catalog::scan(pg_sys::ForeignServerRelationId, &raw mut pg_sys::SnapshotSelfData, |values, nulls| {
            let at = |number: u32| number as usize - 1;
            let is_it = values[at(pg_sys::Anum_pg_foreign_server_oid)].value() as u32 == server.to_u32();
            let options = at(pg_sys::Anum_pg_foreign_server_srvoptions);
            if is_it && !nulls[options] {
                after = Stored::read(pg_sys::untransformRelOptions(values[options]));
            }
        });
        let Some(changed) = options::steering_server().find(|name| stored.get(name) != after.get(name))
        else {
            return;
        };
        let role = pg_sys::GetUserId();
        let others = mappings().into_iter().find(|(of, user)| *of == server && *user != role);
        if let Some((_, other)) = others {
            let name = quote_identifier(from_server_lossy(before.servername));
            let error = Error::new(
                Kind::Forbidden,
                format!(
                    "permission denied to change {changed} of server {name}, on which {} has credentials",
                    role_name(other)
                ),
            )
            .detail("Tokens and rows of that role would be sent that way.")
            .hint("Make another server, or ask a superuser.");
            Err(error).or_raise()
        }
    }
}
