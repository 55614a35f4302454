//! What differs between the major versions of PostgreSQL. All other code is the same for all of them, except for the
//! signature of one hook (`redact/hooks.rs`).

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::list::pointers;

/// Returns the role whose rights on a table of a query are checked; InvalidOid: the current one.
///
/// # Safety
/// The entry is one of the query's range table, or a partition of the table that the query changes.
pub unsafe fn checked_as(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            let _ = query;
            (*entry).checkAsUser
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            let mut entry = entry;
            if (*entry).perminfoindex == 0 {
                // A partition has none: the rights on the table that the statement names count.
                let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
                match usize::try_from((*query).resultRelation - 1).ok().and_then(|at| entries.get(at)) {
                    Some(target) if (**target).perminfoindex != 0 => entry = *target,
                    _ => return pg_sys::InvalidOid,
                }
            }
            (*pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry)).checkAsUser
        }
    }
}

/// A relation that a query uses, and the rights that it takes.
pub struct NeededRights {
    pub relation: pg_sys::Oid,
    /// Whose rights; InvalidOid: the current role's.
    pub user: pg_sys::Oid,
    pub wanted: pg_sys::AclMode,
    /// Columns, counted from `FirstLowInvalidHeapAttributeNumber`.
    pub selected: *mut pg_sys::Bitmapset,
    pub inserted: *mut pg_sys::Bitmapset,
    pub updated: *mut pg_sys::Bitmapset,
}

/// The rights that a query takes, those of the queries within it apart.
///
/// # Safety
/// The query was analysed and rewritten.
pub unsafe fn needed_rights(query: *mut pg_sys::Query) -> Vec<NeededRights> {
    // SAFETY: the caller's promise: the lists are of nodes of these types.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable)
            .iter()
            .filter(|entry| (***entry).rtekind == pg_sys::RTEKind::RTE_RELATION);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let entries = pointers::<pg_sys::RTEPermissionInfo>((*query).rteperminfos).iter();
        let needed = entries.map(|entry| {
            let entry = &**entry;
            NeededRights {
                relation: entry.relid,
                user: entry.checkAsUser,
                wanted: entry.requiredPerms,
                selected: entry.selectedCols,
                inserted: entry.insertedCols,
                updated: entry.updatedCols,
            }
        });
        needed.collect()
    }
}

/// Returns the role whose rights on the table of a scan are checked; InvalidOid: the current one.
///
/// # Safety
/// Both belong to a scan that begins.
pub unsafe fn scan_checked_as(plan: *mut pg_sys::ForeignScan, estate: *mut pg_sys::EState) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            let entries = pointers::<pg_sys::RangeTblEntry>((*estate).es_range_table);
            (*entries[(*plan).scan.scanrelid as usize - 1]).checkAsUser
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            let _ = estate;
            (*plan).checkAsUser
        }
    }
}

/// Returns the role whose rights on a table that a statement writes to are checked; InvalidOid: the current one.
///
/// # Safety
/// Both belong to a statement that begins.
pub unsafe fn result_checked_as(
    rinfo: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            // A partition has no entry in the range table; its parent's counts.
            let root = (*rinfo).ri_RootResultRelInfo;
            let named = if root.is_null() { rinfo } else { root };
            match (*named).ri_RangeTableIndex {
                0 => pg_sys::InvalidOid,
                index => {
                    let entries = pointers::<pg_sys::RangeTblEntry>((*estate).es_range_table);
                    (*entries[index as usize - 1]).checkAsUser
                }
            }
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::ExecGetResultRelCheckAsUser(rinfo, estate)
    }
}

/// Makes a path for a scan that returns the table's own columns, in no order.
///
/// # Safety
/// The relation is being planned; `outer` are the relations that must be known first.
pub unsafe fn foreign_scan_path(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    rows: f64,
    startup_cost: f64,
    total_cost: f64,
    outer: pg_sys::Relids,
) -> *mut pg_sys::ForeignPath {
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::create_foreignscan_path(
            root,
            baserel,
            std::ptr::null_mut(),
            rows,
            #[cfg(feature = "pg18")]
            0,
            startup_cost,
            total_cost,
            std::ptr::null_mut(),
            outer,
            std::ptr::null_mut(),
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}

/// What a custom scan of this extension can do: compute its output. Version 14 takes that for granted.
#[cfg(feature = "pg14")]
pub const CUSTOM_SCAN_FLAGS: u32 = 0;
#[cfg(not(feature = "pg14"))]
pub const CUSTOM_SCAN_FLAGS: u32 = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;

/// A copy of a slot's row in the current memory context. Its values are unpacked.
///
/// # Safety
/// The slot holds a row.
pub unsafe fn minimal_tuple(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::MinimalTuple {
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::heap_form_minimal_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
            #[cfg(feature = "pg18")]
            0,
        )
    }
}

/// Makes PostgreSQL refuse unknown settings with this prefix.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: called in the main thread with a NUL-terminated text, which PostgreSQL copies.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Writes some of the bytes. Returns how many, or a negative number with `errno` set. Raises PostgreSQL's own ERROR at
/// temp_file_limit.
///
/// # Safety
/// The file is open.
pub unsafe fn write_file(file: pg_sys::File, bytes: &[u8], offset: i64) -> isize {
    let wait = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_WRITE;
    let len = amount(bytes.len());
    // SAFETY: the caller's promise; PostgreSQL reads no more bytes than it is told of.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            pg_sys::FileWrite(file, bytes.as_ptr().cast_mut().cast(), len as i32, offset, wait) as isize
        }
        #[cfg(feature = "pg16")]
        {
            pg_sys::FileWrite(file, bytes.as_ptr().cast(), len, offset, wait) as isize
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            let part = pg_sys::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: len };
            pg_sys::FileWriteV(file, &part, 1, offset, wait)
        }
    }
}

/// Reads some of the bytes. Returns how many, or a negative number with `errno` set.
///
/// # Safety
/// The file is open.
pub unsafe fn read_file(file: pg_sys::File, bytes: &mut [u8], offset: i64) -> isize {
    let wait = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_READ;
    let len = amount(bytes.len());
    // SAFETY: the caller's promise; PostgreSQL writes no more bytes than it is told of.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            pg_sys::FileRead(file, bytes.as_mut_ptr().cast(), len as i32, offset, wait) as isize
        }
        #[cfg(feature = "pg16")]
        {
            pg_sys::FileRead(file, bytes.as_mut_ptr().cast(), len, offset, wait) as isize
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            let part = pg_sys::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
            pg_sys::FileReadV(file, &part, 1, offset, wait)
        }
    }
}

/// Limits the bytes of a call, which older versions count in an int.
fn amount(bytes: usize) -> usize {
    bytes.min(1 << 30)
}
