//! Reserves the file descriptors of the I/O thread and its connections, which PostgreSQL does not open itself.
//!
//! PostgreSQL keeps as many files open as the process may have descriptors, a few left over. Sockets that it does not know
//! of would find none any more, or leave none for its own files. So every one is reserved before it is opened, and
//! PostgreSQL closes files for it that it can open again. It gives a third of all to such uses; with fewer than are
//! wanted, fewer requests go at a time.

use std::cell::Cell;

use pgrx::pg_sys;

/// What the I/O thread has open for as long as the process lives: both ends of a socket pair, and of the runtime an epoll
/// instance, its duplicate and an event counter.
const OF_THE_THREAD: usize = 5;
/// The connection to the identity provider.
const OF_TOKENS: usize = 1;
/// The part of the third that is left to PostgreSQL, which takes one for each wait, and to other extensions.
const OF_OTHERS: usize = 3;
/// The most idle connections to a server that are kept for later requests.
const IDLE: usize = 8;

thread_local! {
    /// Descriptors that are reserved for connections. The backend's main thread is the only one that reserves.
    static RESERVED: Cell<usize> = const { Cell::new(0) };
}

/// Reserves what the I/O thread itself needs.
pub fn reserve_for_the_thread() {
    for _ in 0..OF_THE_THREAD {
        // SAFETY: this is the main thread.
        unsafe { pg_sys::ReserveExternalFD() };
    }
}

/// How many idle connections to a server are kept: fewer if there are few descriptors.
pub fn idle_connections() -> usize {
    // SAFETY: a variable that the postmaster has set before it made this process.
    let all = unsafe { pg_sys::max_safe_fds };
    // Of the third that is for such uses, a quarter.
    usize::try_from(all / 3 / 4).unwrap_or_default().clamp(1, IDLE)
}

/// What stays open between requests.
fn spare() -> usize {
    idle_connections() + OF_TOKENS
}

/// Reserves descriptors for so many requests at a time, as far as there are enough; gives for how many: for one at least.
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
    // Without these nothing could be delivered at all: PostgreSQL closes files for them in any case.
    while reserved < 1 + OF_TOKENS {
        // SAFETY: this is the main thread.
        unsafe { pg_sys::ReserveExternalFD() };
        reserved += 1;
    }
    RESERVED.set(reserved);
    reserved.saturating_sub(spare).clamp(1, requests.max(1))
}

/// Releases the descriptors that idle connections do not hold, at the end of a transaction.
pub fn release() {
    while RESERVED.get() > spare() {
        // SAFETY: this is the main thread, and the descriptor was reserved.
        unsafe { pg_sys::ReleaseExternalFD() };
        RESERVED.set(RESERVED.get() - 1);
    }
}
