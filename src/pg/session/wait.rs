//! The one place that owns a thread, and the one place where the backend waits for the network.
//!
//! All network I/O happens on a second thread, in a single-threaded tokio runtime; before COMMIT, while it has little to do, it
//! also makes full requests of datapoints ready ([`SecondThread`]). The main thread hands futures to
//! it and waits on its latch and on a socket that the I/O thread writes to, so that cancellation, termination, the
//! postmaster's death and a vanished client end the wait. The I/O thread never calls into PostgreSQL.
//!
//! PostgreSQL's signal handlers must run on the main thread. The I/O thread is therefore created with all signals
//! blocked; the threads that the runtime creates in turn (name resolution is blocking, and has a thread of its own)
//! are created by the I/O thread and inherit that mask. Nothing here makes the runtime create a thread from the main
//! thread: that would take `spawn_blocking`, which only futures call.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use pgrx::pg_sys;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinError};

use super::{descriptors, progress};
use crate::cdf::activity::Activity;
use crate::cdf::buffer::Background;
use crate::cdf::error::Error;
use crate::cdf::http::client::Client;

/// How long a vanished client can go unnoticed.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Threads of the runtime for name resolution. More would only resolve the same two names at the same time.
const RESOLVER_THREADS: usize = 2;

extern "C-unwind" {
    /// PostgreSQL's own check of the client's socket (libpq/libpq.h). False if the client has closed it.
    fn pq_check_connection() -> bool;
}

/// The I/O thread of a process.
struct Io {
    /// A forked process inherits the memory but not the thread.
    pid: u32,
    handle: Handle,
    /// The main thread's end of the socket pair.
    woken: UnixStream,
    /// The jobs' end.
    wake: Arc<UnixStream>,
    thread: JoinHandle<()>,
    client: OnceCell<Client>,
    /// When the connection of PostgreSQL's client was last checked, by whichever group of jobs.
    client_checked: Mutex<Instant>,
}

/// The I/O thread of this process, started at first use: not in the postmaster, whose backends would not inherit it.
///
/// It is never torn down. A process exits with the thread running, which `exit` does not wait for; shutting the
/// runtime down would wait for a name resolution that hangs.
fn io() -> Result<&'static Io, Error> {
    static IO: Mutex<Option<&'static Io>> = Mutex::new(None);
    let mut current = IO.lock().unwrap_or_else(PoisonError::into_inner);
    match *current {
        Some(io) if io.pid == std::process::id() => Ok(io),
        _ => {
            let io =
                start().map_err(|error| Error::internal(format!("cannot start the I/O thread: {error}")))?;
            Ok(current.insert(Box::leak(Box::new(io))))
        }
    }
}

fn start() -> std::io::Result<Io> {
    descriptors::reserve_for_the_thread();
    let (woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS)
        .build()?;
    let handle = runtime.handle().clone();
    let thread = with_signals_blocked(|| {
        std::thread::Builder::new()
            .name("cdf_fdw I/O".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
    })??;
    Ok(Io {
        pid: std::process::id(),
        handle,
        woken,
        wake: Arc::new(wake),
        thread,
        client: OnceCell::new(),
        client_checked: Mutex::new(Instant::now()),
    })
}

/// Runs `f` with all signals blocked in this thread. A thread that `f` creates keeps them blocked.
fn with_signals_blocked<R>(f: impl FnOnce() -> R) -> std::io::Result<R> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both pointers are valid for writes; sigfillset initialises the set that pthread_sigmask reads.
    let failure = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if failure != 0 {
        return Err(std::io::Error::from_raw_os_error(failure));
    }
    let result = f();
    // SAFETY: pthread_sigmask succeeded above, so it has initialised `before`.
    let failure = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    match failure {
        0 => Ok(result),
        failure => Err(std::io::Error::from_raw_os_error(failure)),
    }
}

/// The HTTP client of this process, with its pool of connections.
///
/// # Errors
/// As [`Client::new`]; `Internal` if the I/O thread cannot be started.
pub fn client() -> Result<Client, Error> {
    io()?.client.get_or_try_init(|| Client::new(descriptors::idle_connections())).cloned()
}

/// Work that needs neither PostgreSQL nor the network, and is done on the I/O thread while the main thread goes on.
#[derive(Debug)]
pub struct SecondThread;

impl Background for SecondThread {
    fn start(&self, work: Box<dyn FnOnce() + Send>) {
        match io() {
            Ok(io) => drop(io.handle.spawn(async move { work() })),
            // The work is not lost, and whoever needs the thread for more is told why there is none.
            Err(_) => work(),
        }
    }
}

/// A group of jobs that run on the I/O thread. Dropping it aborts those that still run; their results go nowhere.
///
/// An aborted job ends at its next await. What it has already sent may still take effect. If PostgreSQL ends the process
/// while it waits (FATAL), nothing is dropped: the transaction is then aborted while the group is still on the stack.
pub struct Jobs<T> {
    io: &'static Io,
    /// What the jobs are done for.
    activity: Arc<Activity>,
    /// How many may run at a time.
    most: usize,
    running: Vec<Running>,
    spawned: u64,
    sender: mpsc::Sender<(u64, Result<T, JoinError>)>,
    results: mpsc::Receiver<(u64, Result<T, JoinError>)>,
    /// Only the main thread may wait.
    _not_send: PhantomData<*const ()>,
}

struct Running {
    number: u64,
    tag: usize,
    abort: AbortHandle,
}

impl<T: Send + 'static> Jobs<T> {
    /// An empty group of jobs that have a connection each, of which so many are to run at a time, or fewer if there are not
    /// as many file descriptors: see [`Jobs::most`].
    ///
    /// # Errors
    /// `Internal` if the I/O thread cannot be started.
    pub fn new(wanted: usize, activity: Arc<Activity>) -> Result<Self, Error> {
        let (sender, results) = mpsc::channel();
        let io = io()?;
        let most = descriptors::reserve(wanted);
        let running = Vec::new();
        Ok(Jobs { io, activity, most, running, spawned: 0, sender, results, _not_send: PhantomData })
    }

    /// How many jobs may run at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Starts a job. The tag comes back with its result, and need not be unique.
    pub fn spawn(&mut self, tag: usize, job: impl Future<Output = T> + Send + 'static) {
        let number = self.spawned;
        self.spawned += 1;
        let sender = self.sender.clone();
        let wake = self.io.wake.clone();
        let job = self.io.handle.spawn(job);
        self.running.push(Running { number, tag, abort: job.abort_handle() });
        // A task of its own, so that a job that panics is reported like any other.
        self.io.handle.spawn(async move {
            // Sending fails if the group was dropped, and writing if the socket is full of bytes that wake as well.
            if sender.send((number, job.await)).is_ok() {
                let _ = (&*wake).write(&[0]);
            }
        });
    }

    /// The number of jobs whose results have not been taken with [`Jobs::next`].
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Waits until a job ends, and returns its tag and result. Processes interrupts, so that it may not return but
    /// unwind with PostgreSQL's ERROR, or end the process. Tells the client of the progress meanwhile.
    ///
    /// # Errors
    /// `Internal` if the job panicked, or if no job is in flight.
    // Not an iterator: those do not raise PostgreSQL errors, and yield nothing when they are empty.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<(usize, T), Error> {
        if self.running.is_empty() {
            return Err(Error::internal("waiting for a job, but none is in flight"));
        }
        loop {
            let next_check = self.process_interrupts();
            if let Ok((number, result)) = self.results.try_recv() {
                let position = self.running.iter().position(|running| running.number == number);
                let Some(position) = position else {
                    return Err(Error::internal("a job ended twice"));
                };
                let tag = self.running.swap_remove(position).tag;
                return match result {
                    Ok(result) => Ok((tag, result)),
                    // Neither the panic's text nor its place is for users; both are in the server log.
                    Err(_) => Err(Error::internal(format!("job {tag} on the I/O thread panicked"))),
                };
            }
            if self.io.thread.is_finished() {
                return Err(Error::internal("the I/O thread is gone"));
            }
            let next_notice = progress::tell_if_due(&self.activity);
            self.wait(next_notice.map_or(next_check, |next| next.min(next_check)));
            self.drain();
        }
    }

    /// What PostgreSQL does in its own waits, and the check of the client when it is due. Returns when it is due next.
    fn process_interrupts(&self) -> Duration {
        let mut checked = self.io.client_checked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next_check = CLIENT_CHECK_INTERVAL.saturating_sub(checked.elapsed());
        if next_check.is_zero() {
            *checked = Instant::now();
            next_check = CLIENT_CHECK_INTERVAL;
            if client_is_gone() {
                // SAFETY: this is the main thread, and these flags are meant to be set asynchronously.
                unsafe {
                    pg_sys::ClientConnectionLost = 1;
                    pg_sys::InterruptPending = 1;
                }
            }
        }
        // What follows may unwind, or end the process after callbacks that wait here in turn.
        drop(checked);
        progress::serve_interrupts(&self.activity);
        next_check
    }

    /// Sleeps until a job ends, the latch is set, or so much time has passed. Ends the process if the postmaster is gone.
    fn wait(&self, timeout: Duration) {
        let wake_on = pg_sys::WL_LATCH_SET
            | pg_sys::WL_SOCKET_READABLE
            | pg_sys::WL_TIMEOUT
            | pg_sys::WL_POSTMASTER_DEATH;
        // SAFETY: this is the main thread, MyLatch is valid in every backend, and the socket lives as long as the
        // process.
        let events = unsafe {
            let events = pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                wake_on as i32,
                self.io.woken.as_raw_fd(),
                // One more, because a timeout of a fraction of a millisecond must not spin.
                timeout.as_millis() as libc::c_long + 1,
                pg_sys::PG_WAIT_EXTENSION,
            );
            if events as u32 & pg_sys::WL_LATCH_SET != 0 {
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
            events as u32
        };
        if events & pg_sys::WL_POSTMASTER_DEATH != 0 {
            progress::die_with_the_postmaster(&self.activity);
        }
    }

    /// Takes the bytes that have woken the main thread. A byte that comes later belongs to a result that comes later.
    fn drain(&self) {
        let mut bytes = [0; 64];
        loop {
            match (&self.io.woken).read(&mut bytes) {
                Ok(read) if read == bytes.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

impl<T> Drop for Jobs<T> {
    fn drop(&mut self) {
        for running in &self.running {
            running.abort.abort();
        }
    }
}

/// Whether the client has closed its connection, as far as the kernel knows. False where there is no client.
fn client_is_gone() -> bool {
    // SAFETY: this is the main thread. The boundary turns a PostgreSQL error into a panic that unwinds Rust frames.
    unsafe { !pg_sys::MyProcPort.is_null() && !pg_sys::ffi::pg_guard_ffi_boundary(|| pq_check_connection()) }
}

/// Runs one job of an activity, and waits for its result as [`Jobs::next`] does.
///
/// # Errors
/// `Internal` if the job panicked or the I/O thread cannot be started.
pub fn run<T: Send + 'static>(
    activity: &Arc<Activity>,
    job: impl Future<Output = T> + Send + 'static,
) -> Result<T, Error> {
    let mut jobs = Jobs::new(1, activity.clone())?;
    jobs.spawn(0, job);
    jobs.next().map(|(_, result)| result)
}
