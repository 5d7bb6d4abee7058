//! A directory that appears at once, with all its files, or not at all.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::{is_at, parent, remove_if_there, sync_directory};
use crate::{beside, remove_directory};

/// The name, within a directory on its way, of the file that says that a process is writing it.
const LOCK: &str = ".lock";

/// A directory on its way: written as `.NAME.partial`, it takes its name in
/// [`finish`](Self::finish). What a killed process left of it is removed by the next one that writes
/// the same directory.
///
/// Dropped before that, it is removed.
#[derive(Debug)]
pub struct NewDirectory {
    path: PathBuf,
    partial: PathBuf,
    /// Held until the end.
    lock: Option<File>,
}

impl NewDirectory {
    /// Begins a directory; its parents are created if need be.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if something other than an empty directory has the name,
    /// [`io::ErrorKind::ResourceBusy`] while another process is writing a directory of that name, and
    /// what the system returns.
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
            // It may have been finished and renamed since.
            _ if !is_at(&lock, &at) => return Err(busy()),
            // Some file systems have no locks.
            _ => {}
        }
        // What a killed process left.
        for entry in fs::read_dir(&partial)? {
            let entry = entry?;
            match entry.file_name() == LOCK {
                true => {}
                false if entry.file_type()?.is_dir() => remove_if_there(&entry.path())?,
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

    /// Where to write the files.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Gives it its name. Its files have been synced, as [`write_file`](crate::write_file) does.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create); the directory is removed then.
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
            // The error at hand matters more than this one.
            let _ = remove_directory(&self.partial);
        }
    }
}

/// Nothing has the name, or an empty directory.
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
    fn appears_whole_and_leaves_nothing_beside_it() {
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
    fn what_a_killed_process_left_is_removed() {
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
    fn another_writer_and_what_is_there_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::create_dir(&path).unwrap();
        let new = NewDirectory::create(&path).unwrap();
        let error = NewDirectory::create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        // A file that comes while it is written is not lost.
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
