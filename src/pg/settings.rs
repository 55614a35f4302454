//! The settings `cdf_fdw.*`.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::compat;

static FLUSH_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600_000);
static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static MAX_RETRIES: GucSetting<i32> = GucSetting::<i32>::new(10);
static MAX_CONCURRENT_REQUESTS: GucSetting<i32> = GucSetting::<i32>::new(8);
static BUFFER_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(65_536);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static LOG_MIN_FLUSH_DURATION: GucSetting<i32> = GucSetting::<i32>::new(-1);
static SECRET_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOW_HTTP: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines the settings and reserves their prefix. `_PG_init` calls this once.
pub fn init() {
    GucRegistry::define_int_guc(
        c"cdf_fdw.flush_timeout",
        c"Sets the maximum time that COMMIT may take to deliver a transaction's rows to CDF.",
        c"It covers all requests, retries and waits of one delivery, and likewise of each page that is read. When it has passed, \
          the transaction aborts. statement_timeout does not apply while COMMIT delivers rows.",
        &FLUSH_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.request_timeout",
        c"Sets the maximum time that one request to CDF or to the identity provider may take.",
        c"A request that takes longer is given up, and sent again where that cannot do its work twice.",
        &REQUEST_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.max_retries",
        c"Sets how often a request to CDF is sent again after a transient failure.",
        c"Throttling, server errors and lost connections count. 0 means that nothing is sent again.",
        &MAX_RETRIES,
        0,
        1_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.max_concurrent_requests",
        c"Sets how many requests to CDF a session may have under way at a time.",
        c"CDF limits the concurrent requests of a project, so that more in one session may slow down others.",
        &MAX_CONCURRENT_REQUESTS,
        1,
        256,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.buffer_memory",
        c"Sets the maximum memory for a transaction's rows that wait for COMMIT.",
        c"What does not fit waits in temporary files, which temp_file_limit counts.",
        &BUFFER_MEMORY,
        64,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.progress_interval",
        c"Sets how often a NOTICE tells the progress of a delivery to CDF, or of a read from it.",
        c"It also keeps clients alive that give up on a silent server. 0 means never.",
        &PROGRESS_INTERVAL,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"cdf_fdw.log_min_flush_duration",
        c"Sets the minimum time of a delivery to CDF above which it is logged.",
        c"One line of the server log tells the rows of each resource, requests, repeats, bytes and times. 0 logs all           deliveries, -1 none.",
        &LOG_MIN_FLUSH_DURATION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"cdf_fdw.allow_http",
        c"Allows http:// URLs of other hosts than this one.",
        c"Rows, credentials and tokens then cross the network unencrypted. URLs of loopback addresses may always be \
          http://.",
        &ALLOW_HTTP,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"cdf_fdw.secret_key_file",
        c"Sets the file with the keys under which the secrets of user mappings are sealed.",
        c"A key of 64 hexadecimal digits on each line. The first one seals, all open. The server's user has to own the file, \
          nobody else may read it, and it is outside of the data directory.",
        &SECRET_KEY_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    compat::reserve_prefix(c"cdf_fdw");
}

/// How long one delivery to CDF, or one read, may take.
pub fn flush_timeout() -> Duration {
    milliseconds(FLUSH_TIMEOUT.get())
}

/// How long one request may take.
pub fn request_timeout() -> Duration {
    milliseconds(REQUEST_TIMEOUT.get())
}

/// How many times a request is sent again.
pub fn max_retries() -> u32 {
    MAX_RETRIES.get().unsigned_abs()
}

/// How many requests may run at a time.
pub fn max_concurrent_requests() -> usize {
    MAX_CONCURRENT_REQUESTS.get().unsigned_abs() as usize
}

/// Bytes of memory for buffered rows.
pub fn buffer_memory() -> usize {
    BUFFER_MEMORY.get().unsigned_abs() as usize * 1024
}

/// How often progress is told; None: never.
pub fn progress_interval() -> Option<Duration> {
    Some(milliseconds(PROGRESS_INTERVAL.get())).filter(|interval| !interval.is_zero())
}

/// The shortest delivery that is logged; None: no delivery is logged.
pub fn log_min_flush_duration() -> Option<Duration> {
    match LOG_MIN_FLUSH_DURATION.get() {
        -1 => None,
        setting => Some(milliseconds(setting)),
    }
}

/// The file with the keys for secrets, if there is one.
pub fn secret_key_file() -> Option<PathBuf> {
    let path = SECRET_KEY_FILE.get().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

/// Whether http:// URLs of hosts other than loopback are accepted.
pub fn allow_http() -> bool {
    ALLOW_HTTP.get()
}

fn milliseconds(setting: i32) -> Duration {
    Duration::from_millis(u64::from(setting.unsigned_abs()))
}
