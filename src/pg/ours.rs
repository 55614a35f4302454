//! Which tables, wrappers and functions are this extension's.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Whether an object of this catalog belongs to this extension.
pub fn is_member(catalog: pg_sys::Oid, object: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the catalogs by a NUL-terminated name and by numbers.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"cdf_fdw".as_ptr(), true);
        extension != pg_sys::InvalidOid && pg_sys::getExtensionOfObject(catalog, object) == extension
    }
}

/// Whether a wrapper is this extension's. Its validator tells, since its name may be changed.
///
/// # Safety
/// It is the wrapper of a server.
pub unsafe fn is_wrapper(wrapper: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the catalogs; a server has its wrapper.
    unsafe {
        let validator = (*pg_sys::GetForeignDataWrapper(wrapper)).fdwvalidator;
        is_member(pg_sys::ProcedureRelationId, validator)
    }
}

extern "C-unwind" {
    /// catalog/pg_inherits.h; the result includes the relation itself.
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// Returns a table and all its partitions or inheriting tables. It looks at them without a lock.
///
/// # Safety
/// The relation is locked by the statement.
pub unsafe fn members(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: a catalog look-up; its result is a list of OIDs.
    unsafe {
        let members = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            find_all_inheritors(relid, pg_sys::NoLock as pg_sys::LOCKMODE, std::ptr::null_mut())
        });
        let count = members.as_ref().map_or(0, |list| list.length as usize);
        (0..count).map(|at| (*(*members).elements.add(at)).oid_value).collect()
    }
}

/// Whether rows of the table may come to this extension: it is a foreign table of it, or has one among its partitions.
///
/// # Safety
/// The relation is locked by the statement.
pub unsafe fn is_table(relid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups. A partition that is dropped meanwhile has no kind any more, and takes no rows.
    unsafe {
        match pg_sys::get_rel_relkind(relid) as u8 {
            pg_sys::RELKIND_FOREIGN_TABLE => is_handled_here(relid),
            pg_sys::RELKIND_PARTITIONED_TABLE => members(relid).into_iter().any(|member| {
                pg_sys::get_rel_relkind(member) as u8 == pg_sys::RELKIND_FOREIGN_TABLE
                    && is_handled_here(member)
            }),
            _ => false,
        }
    }
}

/// Whether the wrapper of a foreign table is this extension's.
///
/// The name of its handler tells. Other wrappers' handlers must not be called to find out: a wrapper need not have one,
/// and this must not load the library of a table that the statement does not use. Only a superuser can create a
/// handler.
///
/// # Safety
/// The relation is a foreign table.
unsafe fn is_handled_here(relid: pg_sys::Oid) -> bool {
    const HANDLER: &CStr = c"cdf_fdw_handler_wrapper";
    // SAFETY: catalog look-ups. The tuple is used before it is released.
    unsafe {
        let server = pg_sys::GetForeignServer(pg_sys::GetForeignServerIdByRelId(relid));
        let handler = (*pg_sys::GetForeignDataWrapper((*server).fdwid)).fdwhandler;
        if handler == pg_sys::InvalidOid {
            return false;
        }
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, handler.into());
        if tuple.is_null() {
            return false;
        }
        let mut null = false;
        let attribute = pg_sys::Anum_pg_proc_prosrc as pg_sys::AttrNumber;
        let source = pg_sys::SysCacheGetAttr(cache, tuple, attribute, &mut null);
        let ours = !null && CStr::from_ptr(pg_sys::text_to_cstring(source.cast_mut_ptr())) == HANDLER;
        pg_sys::ReleaseSysCache(tuple);
        ours
    }
}
