//! Files and directories that are whole or absent, whatever happens meanwhile.
//!
//! What is written goes under another name, is synced, and takes its own name by a rename, which
//! POSIX makes atomic. (`safetensors::serialize_to_file` renames too, but syncs nothing and gives
//! the file its full length first, so that after a power cut a file of the right length may hold
//! zeros.)

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::manifest::FileRecord;

/// Writes a file whole and returns its length and hash, taken from the bytes on their way out.
///
/// # Errors
///
/// What `write` and the system return. The file of that name is then what it was before.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut HashingWriter) -> io::Result<()>,
) -> io::Result<FileRecord> {
    let partial = beside(path, "partial");
    let result = File::create(&partial).and_then(|file| {
        let mut writer = HashingWriter::new(file);
        write(&mut writer)?;
        writer.finish()
    });
    let renamed = result.and_then(|record| {
        fs::rename(&partial, path)?;
        sync_directory(parent(path))?;
        Ok(record)
    });
    if renamed.is_err() {
        // On a full disk the half is in the way; the error at hand matters more than this one.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

/// Gives a directory that is complete its name; one that had the name is gone afterwards.
///
/// Interrupted between its two renames this leaves no directory of that name, but never half of
/// one.
///
/// # Errors
///
/// What the system returns.
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

/// Removes a directory so that no half of it is ever seen under its name.
///
/// # Errors
///
/// What the system returns; none if there is no such directory.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let hidden = beside(path, "removed");
    remove_if_there(&hidden)?;
    match fs::rename(path, &hidden) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    remove_if_there(&hidden)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable, where the system can.
///
/// # Errors
///
/// What the system returns, but for file systems that cannot sync a directory.
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

/// `.NAME.SUFFIX` in the same directory: hidden, and never taken for the thing itself.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A buffered file that hashes what passes through it.
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

    fn finish(self) -> io::Result<FileRecord> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        Ok(FileRecord::new(self.bytes, self.hash.finalize()))
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
}
