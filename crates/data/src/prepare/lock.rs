//! A lock that keeps two processes from preparing the same corpus at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::progress::Progress;

/// The holder of a lock, as recorded in the lock file.
#[derive(Serialize, Deserialize)]
struct Holder {
    process: u32,
    /// Start time, in seconds since 1970.
    since: u64,
}

/// Locks `<cache>/.<name>.lock` until the file is dropped. If another process holds the lock,
/// `progress` is told which one and since when.
pub(super) fn lock(cache: &Path, name: &str, progress: &dyn Progress) -> Result<File, DataError> {
    std::fs::create_dir_all(cache).map_err(DataError::io(cache))?;
    let path = cache.join(format!(".{name}.lock"));
    // Not truncated: until it is locked, the content belongs to another process.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(DataError::io(&path))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!(
                "waiting for {}, which prepares the same corpus and holds {}",
                holder(&mut file),
                path.display()
            ));
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    match locked {
        // On a file system without locks, directories are still complete; only two simultaneous
        // preparations of the same corpus would interfere.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        locked => locked.map_err(DataError::io(&path))?,
    }
    // Information for waiting processes; the lock works without it.
    let _ = sign(&mut file);
    Ok(file)
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let holder = Holder {
        process: std::process::id(),
        since: now().as_secs(),
    };
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&serde_json::to_vec(&holder)?)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(1000).read_to_string(&mut text);
    match read.ok().and_then(|_| serde_json::from_str(&text).ok()) {
        Some(Holder { process, since }) => {
            let seconds = now().as_secs().saturating_sub(since);
            format!("process {process}, running for {seconds} s")
        }
        None => "another process".to_owned(),
    }
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Forwards messages to a channel.
    struct Tell(std::sync::Mutex<mpsc::Sender<String>>);

    impl Progress for Tell {
        fn stage(&self, _: &str, _: Option<u64>) {}
        fn advance(&self, _: u64) {}
        fn done(&self, _: &str) {}
        fn note(&self, line: &str) {
            self.0.lock().unwrap().send(line.to_owned()).unwrap();
        }
    }

    #[test]
    fn a_waiting_process_reports_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), "a", &()).unwrap();
        let (sender, said) = mpsc::channel();
        std::thread::scope(|scope| {
            let tell = Tell(std::sync::Mutex::new(sender));
            let second = scope.spawn(move || lock(folder.path(), "a", &tell).unwrap());
            let said = said.recv().unwrap();
            let process = format!("process {}, running for ", std::process::id());
            assert!(
                said.contains(&process) && said.contains(".a.lock"),
                "{said}"
            );
            drop(first);
            second.join().unwrap();
        });
    }
}
