//! The hashes of the source's files, cached between preparations.
//!
//! A prepared corpus is named by its source's content, so every preparation needs the hash of every file. A
//! file is not read again if device, inode, size, modification time and change time are unchanged. The change
//! time is set by the system, and neither `cp -p` nor `touch` resets it. A file that changed within the last
//! two seconds is not cached, because a second change might not be visible in coarse timestamps.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use iiet_files::open_regular;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::progress::Progress;
use crate::source::Item;

/// The file of hashes in the cache directory.
const MEMORY: &str = ".contents.json";
/// With more files than this, the cache is cleared.
const MOST: usize = 1 << 20;
/// Two changes within this time may have equal timestamps.
const COARSE: Duration = Duration::from_secs(2);
/// No progress is shown for less data than this.
const QUICK_BYTES: u64 = 256 << 20;

/// The metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    /// In hexadecimal.
    blake3: String,
}

/// The hash of each item's file, in the items' order.
///
/// # Errors
/// [`DataError::Io`] if a file cannot be read; [`DataError::SourceRewritten`] if a file is modified while it
/// is read.
pub(super) fn hashes(
    cache: &Path,
    items: &[Item],
    progress: &dyn Progress,
) -> Result<Vec<blake3::Hash>, DataError> {
    let memory = cache.join(MEMORY);
    let mut known = recall(&memory);
    let mut found: Vec<Option<blake3::Hash>> = Vec::with_capacity(items.len());
    for item in items {
        let metadata = std::fs::metadata(&item.path).map_err(DataError::io(&item.path))?;
        let before = known.get(&place(&item.path)).filter(|known| {
            let now = stamp(&metadata);
            now.is_some_and(|now| now == known.stamp)
        });
        found.push(before.and_then(|known| blake3::Hash::from_hex(&known.blake3).ok()));
    }
    let unknown = || items.iter().zip(&found).filter(|(_, hash)| hash.is_none());
    if unknown().next().is_none() {
        return Ok(found.into_iter().flatten().collect());
    }
    let bytes = unknown().map(|(item, _)| item.bytes).sum::<u64>();
    let is_long = bytes >= QUICK_BYTES;
    if is_long {
        progress.stage("hashing the source", Some(bytes));
    }
    let mut hashes = Vec::with_capacity(items.len());
    for (item, before) in items.iter().zip(found) {
        if let Some(hash) = before {
            hashes.push(hash);
            continue;
        }
        let advance = |bytes| {
            if is_long {
                progress.advance(bytes);
            }
        };
        let (hash, metadata) = hash(&item.path, &advance)?;
        if let Some(stamp) = stamp(&metadata).filter(is_settled) {
            let blake3 = hash.to_hex().to_string();
            known.insert(place(&item.path), Known { stamp, blake3 });
        }
        hashes.push(hash);
    }
    if is_long {
        progress.done(&format!("{:.1} MB hashed", bytes as f64 / 1e6));
    }
    remember(cache, &memory, &known);
    Ok(hashes)
}

/// Hashes a file.
fn hash(path: &Path, advance: &dyn Fn(u64)) -> Result<(blake3::Hash, Metadata), DataError> {
    let mut file = open_regular(path).map_err(DataError::io(path))?;
    let before = file.metadata().map_err(DataError::io(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 17];
    loop {
        let read = match file.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DataError::io(path)(error)),
        };
        hasher.update(&block[..read]);
        advance(read as u64);
    }
    let after = file.metadata().map_err(DataError::io(path))?;
    if stamp(&before) != stamp(&after) || before.len() != after.len() {
        return Err(DataError::SourceRewritten {
            path: path.to_path_buf(),
        });
    }
    Ok((hasher.finalize(), after))
}

fn is_settled(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let settled = now.unwrap_or_default().saturating_sub(COARSE).as_secs() as i64;
    stamp.changed.0 < settled && stamp.modified.0 < settled
}

/// `None` if the system has no inodes and change times.
#[cfg(unix)]
fn stamp(metadata: &Metadata) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(not(unix))]
fn stamp(_metadata: &Metadata) -> Option<Stamp> {
    None
}

fn place(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    absolute.to_string_lossy().into_owned()
}

fn recall(memory: &Path) -> BTreeMap<String, Known> {
    let bytes = std::fs::read(memory).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Stores the hashes. A failure only costs time in the next preparation.
fn remember(cache: &Path, memory: &Path, known: &BTreeMap<String, Known>) {
    if known.len() > MOST {
        let _ = std::fs::remove_file(memory);
        return;
    }
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(cache)?;
        let mut file = tempfile::NamedTempFile::new_in(cache)?;
        file.write_all(&serde_json::to_vec(known)?)?;
        file.persist(memory)?;
        Ok(())
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::find;
    use std::fs::File;

    fn hash_of(cache: &Path, path: &Path) -> String {
        let items = find(&[path], None).unwrap();
        let hashes = hashes(cache, &items, &()).unwrap();
        hashes[0].to_hex().to_string()
    }

    #[cfg(unix)]
    #[test]
    fn a_cached_hash_is_used_only_for_the_same_inode_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, path) = (folder.path().join("cache"), folder.path().join("a.txt"));
        std::fs::write(&path, "one").unwrap();
        let one = hash_of(&cache, &path);
        assert_eq!(one, blake3::hash(b"one").to_hex().as_str());
        // Too recent to be cached.
        assert!(recall(&cache.join(MEMORY)).is_empty());

        // As if it had been read long ago: the cached hash is used, and here it is a false one.
        let remember_as = |text: &[u8], path: &Path| {
            let stamp = stamp(&std::fs::metadata(path).unwrap()).unwrap();
            let blake3 = blake3::hash(text).to_hex().to_string();
            let known = BTreeMap::from([(place(path), Known { stamp, blake3 })]);
            remember(&cache, &cache.join(MEMORY), &known);
        };
        remember_as(b"another", &path);
        assert_eq!(
            hash_of(&cache, &path),
            blake3::hash(b"another").to_hex().as_str()
        );

        // The same size and modification time in another file with the same name.
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let other = folder.path().join("b.txt");
        std::fs::write(&other, "two").unwrap();
        let file = File::options().write(true).open(&other).unwrap();
        file.set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(
            hash_of(&cache, &path),
            blake3::hash(b"two").to_hex().as_str()
        );

        // The same inode, modified in place, with the modification time restored.
        remember_as(b"two", &path);
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "six").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!(
            hash_of(&cache, &path),
            blake3::hash(b"six").to_hex().as_str()
        );
    }
}
