//! Tuple slots: what C does in inline functions, through a slot's table of functions.

use pgrx::pg_sys;

/// Empties a slot.
///
/// # Safety
/// The slot exists.
pub unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller's promise; each kind of slot has this function.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            pg_sys::ffi::pg_guard_ffi_boundary(|| clear(slot));
        }
    }
}

/// The slot's row as a heap tuple in the current memory context; null if this kind of slot makes none.
///
/// # Safety
/// The slot holds a row.
pub unsafe fn heap_tuple(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::HeapTuple {
    // SAFETY: the caller's promise.
    unsafe {
        match (*(*slot).tts_ops).copy_heap_tuple {
            Some(copy) => pg_sys::ffi::pg_guard_ffi_boundary(|| copy(slot)),
            None => std::ptr::null_mut(),
        }
    }
}
