//! Chunks in a PostgreSQL temporary file: counted by temp_file_limit, gone at the end of the transaction.
//!
//! Chunks are large, so the file is written without a buffer between. A buffered file (BufFile) would keep what it
//! could not write, and fail again at a COMMIT after the savepoint that brought it was rolled back.

use std::io::Error as IoError;

use pgrx::pg_sys;

use crate::cdf::buffer::{Extent, Spill};
use crate::cdf::error::{Error, Kind};
use crate::cdf::seen::{PageStore, PAGE};
use crate::pg::compat;

/// The temporary file of the transaction, created when it is first written to.
#[derive(Debug)]
pub struct TemporaryFile {
    file: Option<pg_sys::File>,
    /// Where the next chunk goes. What a failed write has left behind it is written over.
    end: i64,
}

impl TemporaryFile {
    pub const fn new() -> Self {
        TemporaryFile { file: None, end: 0 }
    }

    /// Closes the file before a commit, at whose end PostgreSQL would warn of a leaked file.
    pub fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // SAFETY: the file was opened in this transaction, which still runs, and is not used afterwards.
            unsafe { pg_sys::FileClose(file) };
        }
        self.end = 0;
    }

    /// Forgets the file at an abort, where PostgreSQL removes it by itself.
    pub fn forget(&mut self) {
        *self = TemporaryFile::new();
    }

    fn open(&mut self) -> pg_sys::File {
        *self.file.get_or_insert_with(|| {
            // The file must outlive the subtransaction and the statement that happen to write first.
            // SAFETY: a transaction is running, so both owners exist; the current one is put back before anything else
            // runs, and an error in between aborts the (sub)transaction, which sets it anew.
            unsafe {
                let owner = pg_sys::CurrentResourceOwner;
                pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
                pg_sys::PrepareTempTablespaces();
                let file = pg_sys::OpenTemporaryFile(false);
                pg_sys::CurrentResourceOwner = owner;
                file
            }
        })
    }
}

impl Spill for TemporaryFile {
    fn write(&mut self, parts: &[&[u8]]) -> Result<Extent, Error> {
        let file = self.open();
        let offset = self.end;
        let mut at = offset;
        for part in parts {
            write_all(file, part, at)?;
            at += part.len() as i64;
        }
        self.end = at;
        Ok(Extent { offset, len: (at - offset) as usize })
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, Error> {
        let file = self.file.ok_or_else(|| Error::internal("a chunk in a temporary file that is closed"))?;
        let mut bytes = vec![0u8; extent.len];
        read_all(file, &mut bytes, extent.offset)?;
        Ok(bytes)
    }
}

/// A statement's own temporary file, in pages.
///
/// The statement closes it when it ends. PostgreSQL removes it where an error ends the statement, so that it must not be
/// closed again when the statement's memory goes.
#[derive(Debug, Default)]
pub struct StatementFile {
    file: Option<pg_sys::File>,
}

impl StatementFile {
    /// Closes the file. The statement has ended without an error.
    pub fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // SAFETY: the file was opened by this statement, and is not used afterwards.
            unsafe { pg_sys::FileClose(file) };
        }
    }
}

impl PageStore for StatementFile {
    fn read(&mut self, page: u64, into: &mut [u8; PAGE]) -> Result<(), Error> {
        let file = self.file.ok_or_else(|| Error::internal("a page of a temporary file that is closed"))?;
        read_all(file, into, page as i64 * PAGE as i64)
    }

    fn write(&mut self, page: u64, from: &[u8; PAGE]) -> Result<(), Error> {
        let file = *self.file.get_or_insert_with(|| {
            // SAFETY: a statement is running, whose resources the current owner holds.
            unsafe {
                pg_sys::PrepareTempTablespaces();
                pg_sys::OpenTemporaryFile(false)
            }
        });
        write_all(file, from, page as i64 * PAGE as i64)
    }
}

fn full(why: &IoError) -> Error {
    Error::new(Kind::LimitExceeded, format!("rows cannot be kept in a temporary file: {why}")).hint(
        "Make room where temp_tablespaces are, raise cdf_fdw.buffer_memory, or load in smaller transactions.",
    )
}

fn write_all(file: pg_sys::File, bytes: &[u8], offset: i64) -> Result<(), Error> {
    let mut done = 0;
    while done < bytes.len() {
        // SAFETY: the file is open: it is closed with what holds it.
        match unsafe { compat::write_file(file, &bytes[done..], offset + done as i64) } {
            // As PostgreSQL reads it: a write that stops short without saying why has found the disk full.
            0 => return Err(full(&IoError::from_raw_os_error(libc::ENOSPC))),
            written if written < 0 => return Err(full(&IoError::last_os_error())),
            written => done += written as usize,
        }
    }
    Ok(())
}

fn read_all(file: pg_sys::File, bytes: &mut [u8], offset: i64) -> Result<(), Error> {
    let mut done = 0;
    while done < bytes.len() {
        // SAFETY: the file is open: it is closed with what holds it.
        match unsafe { compat::read_file(file, &mut bytes[done..], offset + done as i64) } {
            read if read > 0 => done += read as usize,
            0 => return Err(Error::internal("the temporary file is shorter than what was written")),
            _ => {
                let why = IoError::last_os_error();
                return Err(Error::internal(format!("the temporary file cannot be read: {why}")));
            }
        }
    }
    Ok(())
}
