//! The meaning of names in a statement, looked up in the catalogs if that is possible.

use std::ffi::{c_int, CStr, CString};

use pgrx::pg_sys;

use super::literals::Names;
use crate::pg::ours;

/// What the session knows, asked in its catalogs.
pub struct Session;

impl Names for Session {
    fn is_ours(&self, schema: Option<&[u8]>, function: &[u8]) -> bool {
        // SAFETY: reads a variable of the backend.
        let may_ask = unsafe { pg_sys::IsTransactionState() && pg_sys::MyDatabaseId != pg_sys::InvalidOid };
        !may_ask || is_function_of_ours(schema, function)
    }

    fn prepared(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = CString::new(name).ok()?;
        // SAFETY: a look-up by a NUL-terminated name; a prepared statement has its text.
        unsafe {
            let prepared = pg_sys::FetchPreparedStatement(name.as_ptr(), false).as_ref()?;
            Some(CStr::from_ptr((*prepared.plansource).query_string).to_bytes().to_vec())
        }
    }

    fn backslashes(&self) -> bool {
        // SAFETY: reads a setting.
        unsafe { !pg_sys::standard_conforming_strings }
    }
}

/// The answers while the catalogs cannot be read: no function is known.
pub struct Unasked;

impl Names for Unasked {
    fn is_ours(&self, _: Option<&[u8]>, _: &[u8]) -> bool {
        true
    }

    fn prepared(&self, name: &[u8]) -> Option<Vec<u8>> {
        Session.prepared(name)
    }

    fn backslashes(&self) -> bool {
        Session.backslashes()
    }
}

/// Whether a function of this name may be the extension's. Not, if there are functions of that name where it would be
/// looked for, and none is. Where there are none yet, the name may still become ours.
fn is_function_of_ours(schema: Option<&[u8]>, function: &[u8]) -> bool {
    let name = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    let (schema, function) = (schema.map(name), name(function));
    // SAFETY: look-ups in the catalogs by NUL-terminated names. A list of the cache has so many members, which are
    // tuples of pg_proc, until it is released.
    unsafe {
        let schemas = match &schema {
            Some(schema) => vec![pg_sys::get_namespace_oid(schema.as_ptr(), true)],
            None => oids(pg_sys::fetch_search_path(true)),
        };
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            1,
            function.as_ptr().into(),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        );
        let (mut any, mut is_ours) = (false, false);
        for member in (*list).members.as_slice((*list).n_members as usize) {
            let tuple = &raw mut (**member).tuple;
            let found = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            if schemas.contains(&(*found).pronamespace) {
                any = true;
                is_ours |= ours::is_member(pg_sys::ProcedureRelationId, (*found).oid);
            }
        }
        pg_sys::ReleaseCatCacheList(list);
        is_ours || !any
    }
}

/// # Safety
/// `list` is null or a list of OIDs.
unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: the caller's promise: each cell holds an OID.
    unsafe {
        let length = list.as_ref().map_or(0, |list| list.length as usize);
        (0..length).map(|at| (*(*list).elements.add(at)).oid_value).collect()
    }
}
