//! Reserves the file descriptors of the I/O thread and its connections, which PostgreSQL does not open itself.
//!
//! PostgreSQL keeps as many files open as the process may have descriptors, except for a few. Sockets that it does not
//! know of would find none left, or leave none for its own files. So each is reserved before it is opened, and
//! PostgreSQL closes files for it that it can reopen. It allows a third of all descriptors for such uses; if that is
//! too few, fewer requests run at a time.

use std::cell::Cell;

use pgrx::pg_sys;

/// What the I/O thread keeps open as long as the process lives: both ends of a socket pair, and the runtime's epoll
/// instance, its duplicate and an event counter.
const OF_THE_THREAD: usize = 5;
/// The connection to the identity provider.
const OF_TOKENS: usize = 1;
/// The part of the third that is left to PostgreSQL, which needs one for each wait, and to other extensions.
const OF_OTHERS: usize = 3;
/// The most idle connections to a server that are kept.
const IDLE: usize = 8;

thread_local! {
    /// Descriptors that are reserved for connections. Only the backend's main thread reserves.
    static RESERVED: Cell<usize> = const { Cell::new(0) };
}

/// Reserves what the I/O thread itself needs.
pub fn reserve_for_the_thread() {
    for _ in 0..OF_THE_THREAD {
        // SAFETY: this is the main thread.
        unsafe { pg_sys::ReserveExternalFD() };
    }
}

/// Returns how many idle connections to a server are kept: fewer if descriptors are scarce.
pub fn idle_connections() -> usize {
    // SAFETY: the postmaster set this variable before it forked this process.
    let all = unsafe { pg_sys::max_safe_fds };
    // A quarter of the third that such uses may have.
    usize::try_from(all / 3 / 4).unwrap_or_default().clamp(1, IDLE)
}

/// The number of descriptors that stay open between requests.
fn spare() -> usize {
    idle_connections() + OF_TOKENS
}

/// Reserves descriptors for this many requests at a time, as far as there are enough. Returns for how many, which is at
/// least one.
pub fn reserve(requests: usize) -> usize {
    let (spare, mut reserved) = (spare(), RESERVED.get());
    if reserved < spare + requests {
        // SAFETY: this is the main thread, and what is released was reserved.
        unsafe {
            while reserved < spare + requests + OF_OTHERS && pg_sys::AcquireExternalFD() {
                reserved += 1;
            }
            for _ in 0..OF_OTHERS.min(reserved - RESERVED.get()) {
                pg_sys::ReleaseExternalFD();
                reserved -= 1;
            }
        }
    }
    // Nothing could be delivered without these, so PostgreSQL closes files for them in any case.
    while reserved < 1 + OF_TOKENS {
        // SAFETY: this is the main thread.
        unsafe { pg_sys::ReserveExternalFD() };
        reserved += 1;
    }
    RESERVED.set(reserved);
    reserved.saturating_sub(spare).clamp(1, requests.max(1))
}

/// Releases the descriptors that idle connections do not need, at the end of a transaction.
pub fn release() {
    while RESERVED.get() > spare() {
        // SAFETY: this is the main thread, and the descriptor was reserved.
        unsafe { pg_sys::ReleaseExternalFD() };
        RESERVED.set(RESERVED.get() - 1);
    }
}
