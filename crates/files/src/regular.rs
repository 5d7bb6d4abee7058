//! Reading of regular files only.
//!
//! A pipe without a writer blocks forever, `/dev/zero` never ends, and a terminal waits for its
//! user. To read from one of these, a user pipes it to standard input.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::check_replaceable;

/// Opens a regular file for reading, following links. Other files are never opened.
///
/// # Errors
///
/// Errors of the system, and [`io::ErrorKind::InvalidInput`] for a directory, pipe, socket or
/// device, with its kind in the message. Messages do not contain the path.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Checked before opening, because opening a device can have side effects.
    require_regular(&path.metadata()?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        // The file may have been replaced by a pipe in the meantime, which must not block.
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    require_regular(&file.metadata()?)?;
    Ok(file)
}

/// The bytes of a regular file.
///
/// # Errors
///
/// The same as for [`open_regular`].
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file.
///
/// # Errors
///
/// The same as for [`open_regular`], and [`io::ErrorKind::InvalidData`] if the file is not UTF-8.
pub fn read_regular_text(path: &Path) -> io::Result<String> {
    let mut file = open_regular(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a regular file for appending, and creates it if it does not exist. Links are not followed.
///
/// # Errors
///
/// The same as for [`open_regular`].
pub fn append_regular(path: &Path) -> io::Result<File> {
    check_replaceable(path)?;
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    }
    let file = options.open(path)?;
    require_regular(&file.metadata()?)?;
    Ok(file)
}

fn require_regular(found: &Metadata) -> io::Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(not_regular(found.file_type())),
    }
}

pub(crate) fn not_regular(found: FileType) -> io::Error {
    let found = name(found);
    let message = format!("is a {found}; allowed: a regular file");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn name(found: FileType) -> &'static str {
    if found.is_file() {
        return "regular file";
    }
    if found.is_dir() {
        return "directory";
    }
    if found.is_symlink() {
        return "symbolic link";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "named pipe";
        }
        if found.is_socket() {
            return "socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "device";
        }
    }
    "special file"
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn pipes_devices_and_directories_are_errors_naming_the_kind() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let link = folder.path().join("link");
        symlink(&pipe, &link).unwrap();
        for (path, found) in [
            (pipe.as_path(), "named pipe"),
            (&link, "named pipe"),
            (Path::new("/dev/null"), "device"),
            (folder.path(), "directory"),
        ] {
            let error = open_regular(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let expected = format!("is a {found}; allowed: a regular file");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn appending_creates_a_file_and_does_not_follow_links() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).unwrap();
        let error = append_regular(&link).unwrap_err().to_string();
        assert_eq!(error, "is a symbolic link; allowed: a regular file");
        append_regular(&file).unwrap().write_all(b"a").unwrap();
        append_regular(&file).unwrap().write_all(b"b").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"ab");
    }

    #[test]
    fn a_regular_file_is_read_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, b"text").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read_regular(&link).unwrap(), b"text");
        assert_eq!(read_regular_text(&link).unwrap(), "text");
        let missing = read_regular(&folder.path().join("missing"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
