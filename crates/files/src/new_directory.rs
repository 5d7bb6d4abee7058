//! A new directory that appears atomically, with all its files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::{is_at, parent, remove_if_present, sync_directory};
use crate::{beside, remove_directory};

/// The name of the file, in an unfinished directory, that marks it as being written by a process.
const LOCK: &str = ".lock";

/// An unfinished directory: written as `.NAME.partial`, it is renamed to its final name by
/// [`finish`](Self::finish). If a killed process left it behind, the next process that writes the same
/// directory removes it.
///
/// It is removed if dropped before `finish`.
#[derive(Debug)]
pub struct NewDirectory {
    path: PathBuf,
    partial: PathBuf,
    /// Held until the directory is finished or removed.
    lock: Option<File>,
}

impl NewDirectory {
    /// Starts a directory; its parents are created if necessary.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the path exists and is not an empty directory,
    /// [`io::ErrorKind::ResourceBusy`] while another process is writing a directory of that name, and errors
    /// of the system.
    pub fn create(path: &Path) -> io::Result<Self> {
        check_free(path)?;
        let partial = beside(path, "partial");
        fs::create_dir_all(parent(path))?;
        match fs::create_dir(&partial) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let at = partial.join(LOCK);
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&at)?;
        let busy = || {
            let message = format!("another process is writing {}", partial.display());
            io::Error::new(io::ErrorKind::ResourceBusy, message)
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(busy()),
            // It may have been finished and renamed in the meantime.
            _ if !is_at(&lock, &at) => return Err(busy()),
            // Some file systems do not support locks.
            _ => {}
        }
        // Left by a killed process.
        for entry in fs::read_dir(&partial)? {
            let entry = entry?;
            match entry.file_name() == LOCK {
                true => {}
                false if entry.file_type()?.is_dir() => remove_if_present(&entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        let (path, lock) = (path.to_owned(), Some(lock));
        Ok(Self {
            path,
            partial,
            lock,
        })
    }

    /// The directory to write the files into.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Renames the directory to its final name. Its files must be synced, as
    /// [`write_file`](crate::write_file) does.
    ///
    /// # Errors
    ///
    /// The same as for [`create`](Self::create); the directory is then removed.
    pub fn finish(mut self) -> io::Result<()> {
        fs::remove_file(self.partial.join(LOCK))?;
        sync_directory(&self.partial)?;
        check_free(&self.path)?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.partial, &self.path)?;
        self.lock = None;
        sync_directory(parent(&self.path))
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if self.lock.take().is_some() {
            // `error` matters more than an error of this removal.
            let _ = remove_directory(&self.partial);
        }
    }
}

/// Checks that the path does not exist or is an empty directory.
fn check_free(path: &Path) -> io::Result<()> {
    let taken = |found| {
        let message = format!("{found}; allowed: a directory that does not exist yet or is empty");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.is_dir() => taken("is not a directory"),
        Ok(_) => match fs::read_dir(path)?.next() {
            None => Ok(()),
            Some(_) => taken("is not empty"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_complete_and_leaves_no_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let new = NewDirectory::create(&path).unwrap();
        fs::write(new.partial().join("file"), "text").unwrap();
        assert!(!path.exists());
        new.finish().unwrap();
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(&path), ["file"]);
        assert_eq!(names(&folder.path().join("a")), ["b"]);
    }

    #[test]
    fn directories_of_a_killed_process_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let left = folder.path().join(".model.partial");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        fs::write(left.join("half"), "ha").unwrap();
        NewDirectory::create(&path).unwrap().finish().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn is_removed_if_it_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let new = NewDirectory::create(&folder.path().join("model")).unwrap();
        fs::write(new.partial().join("file"), "text").unwrap();
        drop(new);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn concurrent_writers_and_existing_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::create_dir(&path).unwrap();
        let new = NewDirectory::create(&path).unwrap();
        let error = NewDirectory::create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        // A file that appears during the writing is not lost.
        fs::write(path.join("mine"), "text").unwrap();
        let error = new.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
        assert!(
            error.to_string().contains("is not empty; allowed"),
            "{error}"
        );
        assert_eq!(fs::read(path.join("mine")).unwrap(), b"text");
        let error = NewDirectory::create(&path.join("mine")).unwrap_err();
        assert!(error.to_string().contains("is not a directory"), "{error}");
    }
}
