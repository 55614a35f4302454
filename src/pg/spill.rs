//! Chunks in a PostgreSQL temporary file: counted by temp_file_limit, gone at the end of the transaction.

use pgrx::pg_sys;

use crate::cdf::buffer::{Extent, Spill};
use crate::cdf::error::Error;

/// The temporary file of the transaction, created when it is first written to.
#[derive(Debug)]
pub struct TemporaryFile {
    file: *mut pg_sys::BufFile,
    /// Where the next chunk goes: reading moves the file's own position.
    end: (i32, i64),
}

impl TemporaryFile {
    pub const fn new() -> Self {
        TemporaryFile { file: std::ptr::null_mut(), end: (0, 0) }
    }

    /// Closes the file before a commit, at whose end PostgreSQL would warn of a leaked file.
    pub fn close(&mut self) {
        if !self.file.is_null() {
            let file = std::mem::replace(&mut self.file, std::ptr::null_mut());
            // SAFETY: the file was created in this transaction, which still runs, and is not used afterwards.
            unsafe { pg_sys::BufFileClose(file) };
        }
        self.end = (0, 0);
    }

    /// Forgets the file at an abort, where PostgreSQL removes it by itself.
    pub fn forget(&mut self) {
        self.file = std::ptr::null_mut();
        self.end = (0, 0);
    }

    fn open(&mut self) -> *mut pg_sys::BufFile {
        if self.file.is_null() {
            // The file must outlive the subtransaction and the statement that happen to write first.
            // SAFETY: a transaction is running, so both exist; they are put back before anything else runs, and an
            // error in between aborts the transaction, which resets them too.
            unsafe {
                let owner = pg_sys::CurrentResourceOwner;
                let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
                pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
                // The name of temporary tablespaces is looked up once per transaction, and needs no snapshot.
                pg_sys::PrepareTempTablespaces();
                self.file = pg_sys::BufFileCreateTemp(false);
                pg_sys::CurrentResourceOwner = owner;
                pg_sys::MemoryContextSwitchTo(context);
            }
        }
        self.file
    }
}

impl Spill for TemporaryFile {
    fn write(&mut self, parts: &[&[u8]]) -> Result<Extent, Error> {
        let file = self.open();
        let (number, offset) = self.end;
        // SAFETY: the file is open; a failing seek changes nothing, and a failing write raises PostgreSQL's own ERROR
        // (disk full, temp_file_limit), which unwinds through here.
        unsafe {
            if pg_sys::BufFileSeek(file, number, offset, libc::SEEK_SET) != 0 {
                return Err(Error::internal("cannot go to the end of the temporary file"));
            }
            for part in parts {
                pg_sys::BufFileWrite(file, part.as_ptr().cast_mut().cast(), part.len());
            }
            pg_sys::BufFileTell(file, &mut self.end.0, &mut self.end.1);
        }
        Ok(Extent { file: number, offset, len: parts.iter().map(|part| part.len()).sum() })
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0u8; extent.len];
        // SAFETY: the buffer has as many bytes as are asked for; the extent was written by `write`.
        let read = unsafe {
            if self.file.is_null()
                || pg_sys::BufFileSeek(self.file, extent.file, extent.offset, libc::SEEK_SET) != 0
            {
                return Err(Error::internal("cannot go back in the temporary file"));
            }
            pg_sys::BufFileRead(self.file, bytes.as_mut_ptr().cast(), bytes.len())
        };
        if read != extent.len {
            return Err(Error::internal("the temporary file is shorter than what was written"));
        }
        Ok(bytes)
    }
}
