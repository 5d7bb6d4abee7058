//! Atomic writing: files and directories are either complete or absent, even if the process is killed.
//!
//! Data is written under a temporary name, synced, and renamed to its final name, which POSIX makes atomic.
//! (`safetensors::serialize_to_file` also renames, but does not sync and sets the file's full length first,
//! so that after a power failure a file of the right length may contain zeros.)

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::regular::not_regular;
use crate::{FileRecord, open_regular};

/// The maximum number of processes that can write a file of the same name at once.
const WRITERS: usize = 64;

/// Writes a file completely and returns its length and hash, computed while the bytes are written.
///
/// The data is written to `.NAME.partial` in the same directory, which is created exclusively, so a link of
/// that name is not followed. If a killed process left a file of that name, it is removed. If another process
/// is still writing there, the next free name of `.NAME.partial-1`, .. is used, and the file of the process
/// that finishes last remains.
///
/// # Errors
///
/// Errors of `write` and of the system, and [`io::ErrorKind::InvalidInput`] if the path exists and is not a
/// regular file. An existing file is then unchanged.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut HashingWriter) -> io::Result<()>,
) -> io::Result<FileRecord> {
    check_replaceable(path)?;
    let (partial, file) = create_partial(path)?;
    let mut writer = HashingWriter::new(file);
    let written = write(&mut writer).and_then(|()| {
        let (record, file) = writer.finish()?;
        check_replaceable(path)?;
        fs::rename(&partial, path)?;
        // Until here the lock marked the partial file as in use.
        drop(file);
        sync_directory(parent(path))?;
        Ok(record)
    });
    if written.is_err() {
        // Removes the incomplete file, as the disk may be full. `error` matters more than an error of this
        // removal.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Checks that [`write_file`] may write to a path: it does not exist, or is a regular file.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] with the kind of file: devices, pipes, directories and links are never
/// replaced. And errors of the system.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => Err(not_regular(found.file_type())),
    }
}

/// Creates and locks the temporary file for `path`.
fn create_partial(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..WRITERS {
        let partial = match number {
            0 => beside(path, "partial"),
            _ => beside(path, &format!("partial-{number}")),
        };
        remove_stale(&partial)?;
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial);
        match created {
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => error = taken,
            Err(other) => return Err(other),
            // A process that considers the file stale may hold its lock, and removes it.
            Ok(file) => match file.try_lock() {
                Err(TryLockError::WouldBlock) => {}
                // Some file systems do not support locks.
                _ if is_at(&file, &partial) => return Ok((partial, file)),
                _ => {}
            },
        }
    }
    Err(error)
}

/// Removes a partial file that no process is writing any more.
fn remove_stale(partial: &Path) -> io::Result<()> {
    let found = match partial.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_symlink() {
        // Removes the link, not its target.
        return fs::remove_file(partial);
    }
    let file = match open_regular(partial) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(()),
        _ if is_at(&file, partial) => fs::remove_file(partial),
        _ => Ok(()),
    }
}

/// Whether `path` refers to the open file.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Whether `path` refers to the open file. On this system an open file cannot be replaced.
#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Renames a complete directory to its final name, replacing an existing directory.
///
/// If interrupted between its two renames, no directory of that name remains, but never an incomplete one.
///
/// # Errors
///
/// Errors of the system.
pub fn install_directory(complete: &Path, path: &Path) -> io::Result<()> {
    sync_directory(complete)?;
    let replaced = beside(path, "replaced");
    remove_directory(&replaced)?;
    match fs::rename(path, &replaced) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(complete, path)?;
    sync_directory(parent(path))?;
    remove_directory(&replaced)
}

/// Removes a directory such that an incomplete one is never visible under its name.
///
/// # Errors
///
/// Errors of the system; a missing directory is not an error.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let hidden = beside(path, "removed");
    remove_if_present(&hidden)?;
    match fs::rename(path, &hidden) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    remove_if_present(&hidden)
}

pub(crate) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the entries of a directory durable, if the system supports it.
///
/// # Errors
///
/// Errors of the system, except on file systems that cannot sync directories.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(path)?.sync_all() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// `.NAME.SUFFIX` in the same directory: hidden, and not mistaken for the final file.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A buffered file that hashes the bytes written to it.
#[derive(Debug)]
pub struct HashingWriter {
    file: BufWriter<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl HashingWriter {
    fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: blake3::Hasher::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> io::Result<(FileRecord, File)> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        Ok((FileRecord::new(self.bytes, self.hash.finalize()), file))
    }
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let record = write_file(&path, |file| file.write_all(b"old")).unwrap();
        assert_eq!(record, FileRecord::new(3, blake3::hash(b"old")));
        let error = write_file(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_replaces_another_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("model"), folder.path().join(".new"));
        for (dir, text) in [(&path, "old"), (&new, "new")] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("a"), text).unwrap();
        }
        install_directory(&new, &path).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove_directory(&path).unwrap();
        remove_directory(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_of_a_killed_process_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(folder.path().join(".a.partial"), "half").unwrap();
        write_file(&path, |file| file.write_all(b"whole")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_one_name_each_write_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_file(&path, |first| {
            first.write_all(b"first ")?;
            write_file(&path, |second| second.write_all(b"second"))?;
            assert_eq!(fs::read(&path).unwrap(), b"second");
            first.write_all(b"to the end")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first to the end");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_and_only_regular_files_are_replaced() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a", "other"].map(|name| folder.path().join(name));
        fs::write(&other, "untouched").unwrap();
        symlink(&other, folder.path().join(".a.partial")).unwrap();
        write_file(&path, |file| file.write_all(b"text")).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"untouched");

        let [link, pipe, dir] = ["link", "pipe", "dir"].map(|name| folder.path().join(name));
        symlink(&other, &link).unwrap();
        fs::create_dir(&dir).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let null = PathBuf::from("/dev/null");
        for (path, found) in [
            (link, "symbolic link"),
            (pipe, "named pipe"),
            (dir, "directory"),
            (null, "device"),
        ] {
            let error = write_file(&path, |_| panic!("opened")).unwrap_err();
            let expected = format!("is a {found}; allowed: a regular file");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(fs::read(&other).unwrap(), b"untouched");
    }
}
