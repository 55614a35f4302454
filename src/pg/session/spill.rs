//! Chunks in a PostgreSQL temporary file: temp_file_limit counts it, and it is removed at the end of the transaction.
//!
//! Chunks are large, so the file needs no buffer. A buffered file (BufFile) would keep what it could not write, and
//! fail again at COMMIT even after the savepoint that wrote it was rolled back.

use std::io::Error as IoError;

use pgrx::pg_sys;

use crate::cdf::buffer::{Extent, Spill};
use crate::cdf::error::{Error, Kind};
use crate::cdf::seen::{PageStore, PAGE};
use crate::pg::compat;

/// The transaction's temporary file, created by the first write.
#[derive(Debug)]
pub struct TemporaryFile {
    file: Option<pg_sys::File>,
    /// Where the next chunk goes. It overwrites what a failed write has left behind.
    end: i64,
}

impl TemporaryFile {
    pub const fn new() -> Self {
        TemporaryFile { file: None, end: 0 }
    }

    /// Closes the file before a commit; otherwise PostgreSQL would warn of a leaked file at the end of it.
    pub fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // SAFETY: the file was opened in this transaction, which still runs, and is not used afterwards.
            unsafe { pg_sys::FileClose(file) };
        }
        self.end = 0;
    }

    /// Forgets the file at an abort, where PostgreSQL removes it itself.
    pub fn forget(&mut self) {
        *self = TemporaryFile::new();
    }

    fn open(&mut self) -> pg_sys::File {
        *self.file.get_or_insert_with(|| {
            // The file must outlive the subtransaction and the statement that write to it first.
            // SAFETY: a transaction is running, so both owners exist; the current one is restored before anything else
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
/// The statement closes it when it ends. If an error ends the statement, PostgreSQL removes the file, and it must not
/// be closed again when the statement's memory is freed.
#[derive(Debug, Default)]
pub struct StatementFile {
    file: Option<pg_sys::File>,
}

impl StatementFile {
    /// Closes the file after the statement has ended without an error.
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
            // SAFETY: a statement is running, and the current owner holds its resources.
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
        // SAFETY: the file is open; its owner closes it.
        match unsafe { compat::write_file(file, &bytes[done..], offset + done as i64) } {
            // PostgreSQL reads this the same way: a short write without a reason means that the disk is full.
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
        // SAFETY: the file is open; its owner closes it.
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
