//! Whose rights a statement uses, and whose objects may be relied on.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use crate::pg::compat;
use crate::pg::text::from_server;

/// Returns the role whose rights a scan runs with: the owner of the view through which the table is reached, if any.
///
/// # Safety
/// Both belong to a scan that begins.
pub unsafe fn of_scan(plan: *mut pg_sys::ForeignScan, estate: *mut pg_sys::EState) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    or_current(unsafe { compat::scan_checked_as(plan, estate) })
}

/// Returns the role whose rights a statement writes to a table with: the owner of the view through which the table is
/// reached, if any.
///
/// # Safety
/// Both belong to a statement that begins.
pub unsafe fn of_change(rinfo: *mut pg_sys::ResultRelInfo, estate: *mut pg_sys::EState) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    or_current(unsafe { compat::result_checked_as(rinfo, estate) })
}

/// Returns the role, or the current one for InvalidOid.
pub fn or_current(user: pg_sys::Oid) -> pg_sys::Oid {
    if user == pg_sys::InvalidOid {
        // SAFETY: reads a variable of the backend.
        unsafe { pg_sys::GetUserId() }
    } else {
        user
    }
}

/// Whether a role may rely on an object of this owner: its own, or a superuser's. Anybody else could change the object
/// afterwards.
pub fn may_rely_on(owner: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs.
    owner == role || unsafe { pg_sys::superuser_arg(owner) }
}

/// Returns the name of a role, for an error.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: the name is a copy in the current memory context, or null for a role that is gone.
    let name = unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| from_server(name))
    };
    name.map_or("PUBLIC".into(), quote_identifier)
}

/// Whether a role still exists.
pub fn exists(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs, whose result is a copy, or null.
    unsafe { !pg_sys::GetUserNameFromId(role, true).is_null() }
}

/// Whether the current role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads the rights of the current role.
    unsafe { pg_sys::superuser() }
}
