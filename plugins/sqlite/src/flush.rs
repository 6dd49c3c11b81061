//! Syncs a database file without a checkpoint.
//!
//! SQLite only syncs the file at the end of a checkpoint that copied the whole log, which under load is one of the
//! writer's. The file handle is taken from the connection, because closing a separate handle would release all locks of
//! this process on the file.
#![expect(unsafe_code, reason = "the connection's file, which rusqlite does not wrap")]

use std::ffi::c_int;
use std::ptr;

use rusqlite::{Connection, Error, Result, ffi};

/// Waits until everything that was copied into the file is on the disk.
pub(crate) fn flush(connection: &Connection) -> Result<()> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the connection is open while it is borrowed, and SQLite writes a pointer to its main file to the last
    // argument.
    check(unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            ptr::null(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            ptr::from_mut(&mut file).cast(),
        )
    })?;
    // SAFETY: the file lives as long as the connection; its methods are only null before it is opened.
    let sync = unsafe { file.as_ref().and_then(|file| file.pMethods.as_ref()).and_then(|methods| methods.xSync) };
    // SAFETY: a connection is used by one thread at a time, so nobody else uses its file now.
    sync.map_or(Ok(()), |sync| check(unsafe { sync(file, ffi::SQLITE_SYNC_NORMAL | ffi::SQLITE_SYNC_DATAONLY) }))
}

fn check(code: c_int) -> Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}
