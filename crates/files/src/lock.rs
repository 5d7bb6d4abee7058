//! A lock on a file, held by at most one process.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::is_at;
use crate::regular::append_regular;

/// The maximum number of attempts, since another process may remove the file between its opening and its
/// locking.
const TRIES: usize = 8;

/// A lock on a file that serves no other purpose. The system releases it when the process ends, for whatever
/// reason.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

impl FileLock {
    /// Creates the file if necessary and locks it; `None` if another process holds the lock. On a file system
    /// without locks it is always granted.
    ///
    /// # Errors
    ///
    /// Errors of the system, and [`io::ErrorKind::InvalidInput`] if the path is not a regular file.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..TRIES {
            let file = append_regular(path)?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Ok(None);
            }
            // The previous holder may have removed the file; then the lock is on a file without this name.
            if is_at(&file, path) {
                let path = path.to_owned();
                return Ok(Some(Self { path, _file: file }));
            }
        }
        Ok(None)
    }

    /// Removes the file and releases the lock.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let lock = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(lock);
        let lock = FileLock::try_acquire(&path).unwrap().unwrap();
        lock.remove().unwrap();
        assert!(!path.exists());
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}
