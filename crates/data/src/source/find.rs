//! Finds the files of a source: a file named directly, or a directory searched recursively.
//!
//! The order is that of the given paths and, within a directory, of the names as bytes; hidden
//! files and directories are skipped. Links are followed, but no directory is entered twice, so
//! loops of links terminate.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use iiet_files::open_regular;

use super::{Item, Split, direct_kind, kind, known_extensions};
use crate::error::DataError;

/// The files of `paths`, all of them in `split` if given.
///
/// A file named directly may also have a data format's extension, or no extension.
pub(crate) fn find(paths: &[&Path], split: Option<Split>) -> Result<Vec<Item>, DataError> {
    let mut items = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(DataError::io(*path))?;
        if metadata.is_dir() {
            let before = items.len();
            let mut other_files = 0;
            let mut entered = HashSet::new();
            search(path, split, &mut entered, &mut items, &mut other_files)?;
            if items.len() == before {
                return Err(DataError::NothingToRead {
                    path: path.to_path_buf(),
                    other_files,
                    known: known_extensions(),
                });
            }
        } else {
            // Checked here, so that a pipe is an error before anything is read.
            open_regular(path).map_err(DataError::io(*path))?;
            let (format, compression) =
                direct_kind(path).ok_or_else(|| DataError::UnknownKind {
                    path: path.to_path_buf(),
                    known: known_extensions(),
                })?;
            items.push(Item {
                compression,
                ..Item::file(path, format, metadata.len(), split)
            });
        }
    }
    Ok(items)
}

fn search(
    folder: &Path,
    split: Option<Split>,
    entered: &mut HashSet<PathBuf>,
    items: &mut Vec<Item>,
    other_files: &mut u64,
) -> Result<(), DataError> {
    let real = fs::canonicalize(folder).map_err(DataError::io(folder))?;
    if !entered.insert(real) {
        return Ok(());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_by(|a, b| {
        let name = |path: &PathBuf| path.file_name().map(|n| n.as_encoded_bytes().to_vec());
        name(a).cmp(&name(b))
    });
    for path in paths {
        // A dangling link is not a file of the corpus.
        let Ok(metadata) = fs::metadata(&path) else {
            *other_files += 1;
            continue;
        };
        if metadata.is_dir() {
            search(&path, split, entered, items, other_files)?;
        } else if metadata.is_file() {
            match kind(&path) {
                Some((format, compression)) => items.push(Item {
                    compression,
                    ..Item::file(&path, format, metadata.len(), split)
                }),
                None => *other_files += 1,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Format;

    fn names(items: &[Item], root: &Path) -> Vec<String> {
        let relative = |item: &Item| item.path.strip_prefix(root).unwrap().display().to_string();
        items.iter().map(relative).collect()
    }

    #[test]
    fn folders_are_searched_in_order_without_hidden_files() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        for name in [
            "z.txt",
            "b/c/x.jsonl.gz",
            "a.rs",
            ".hidden.txt",
            ".git/a.txt",
            "b/p.png",
        ] {
            fs::write(root.join(name), "x").unwrap();
        }
        let items = find(&[root], None).unwrap();
        let expected = ["a.rs", "b/c/x.jsonl.gz", "z.txt"]
            .map(|n| n.replace('/', std::path::MAIN_SEPARATOR_STR));
        assert_eq!(names(&items, root), expected);
    }

    #[test]
    fn the_error_for_an_empty_directory_lists_supported_extensions() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.png"), "x").unwrap();
        let error = find(&[root.path()], None).unwrap_err().to_string();
        assert!(error.contains("1 files with other extensions"), "{error}");
        assert!(
            error.contains(".jsonl") && error.contains(".txt"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_terminates() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/t.txt"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling.txt")).unwrap();
        let items = find(&[root.path()], None).unwrap();
        assert_eq!(items.len(), 1);
    }

    #[test]
    fn files_named_directly_are_found() {
        let root = tempfile::tempdir().unwrap();
        let csv = root.path().join("a.csv");
        let zip = root.path().join("a.zip");
        fs::write(&csv, "x").unwrap();
        fs::write(&zip, "x").unwrap();
        let comma = Format::Csv { delimiter: b',' };
        assert_eq!(find(&[&csv], None).unwrap()[0].format, comma);
        assert!(matches!(
            find(&[&zip], None),
            Err(DataError::UnknownKind { .. })
        ));
        #[cfg(unix)]
        for device in ["/dev/null", "/dev/zero"] {
            let error = find(&[Path::new(device)], None).unwrap_err();
            assert!(error.to_string().contains(device), "{error}");
        }
        let missing = root.path().join("none.txt");
        assert!(matches!(find(&[&missing], None), Err(DataError::Io { .. })));
    }
}
