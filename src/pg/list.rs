//! PostgreSQL's lists.

use pgrx::pg_sys;

/// Returns the cells of a list of pointers.
///
/// # Safety
/// `list` is null (NIL) or a list of pointers to `T` that lives for `'l` and is not changed meanwhile.
pub unsafe fn pointers<'l, T>(list: *mut pg_sys::List) -> &'l mut [*mut T] {
    // SAFETY: a List's elements are an array of `length` cells, which are unions of pointer size.
    unsafe {
        match list.as_mut() {
            None => &mut [],
            Some(list) => std::slice::from_raw_parts_mut(list.elements.cast(), list.length as usize),
        }
    }
}

/// Returns the elements of a list of integers.
///
/// # Safety
/// `list` is null (NIL) or a list of integers.
pub unsafe fn integers(list: *mut pg_sys::List) -> Vec<i32> {
    // SAFETY: as for `pointers`, with integers in the cells.
    unsafe {
        (0..list.as_ref().map_or(0, |list| list.length as usize))
            .map(|at| (*(*list).elements.add(at)).int_value)
            .collect()
    }
}
