//! A file that one process at a time holds.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::is_at;
use crate::regular::append_regular;

/// So often another process may remove the file between its opening and its locking.
const TRIES: usize = 8;

/// A lock on a file, which exists for that purpose alone. The system releases it, however the
/// process ends.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

impl FileLock {
    /// Creates the file if need be and locks it; `None` if another process holds the lock. On a file
    /// system without locks it is always granted.
    ///
    /// # Errors
    ///
    /// What the system returns, and [`io::ErrorKind::InvalidInput`] for what is not a regular file.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..TRIES {
            let file = append_regular(path)?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Ok(None);
            }
            // Whoever held it before may have removed it; then the lock is on no file of that name.
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
    /// What the system returns.
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
