//! A full disk, and a directory that cannot be written.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::Extent;
use super::workload::{Workload, contents, copy};

pub(super) struct Disk {
    full: u64,
    full_by: &'static str,
    read_only_by: &'static str,
    seconds: f64,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "full disk         {} sizes ({}): the old checkpoint unchanged, the remedy reported, resumed to the clean run's end with free space\nread-only         the same ({}); {:.0} s",
            self.full, self.full_by, self.read_only_by, self.seconds
        )
    }
}

pub(super) fn run(workload: &Workload, extent: &Extent) -> anyhow::Result<Disk> {
    let started = Instant::now();
    let mount = workload.folder("disk");
    fs::create_dir_all(&mount)?;
    let mounted = mount_sized(&mount, 64 << 20).is_ok();
    let mut done = Disk {
        full: extent.disk_sizes,
        full_by: match mounted {
            true => "a tmpfs",
            false => "no permission to mount: RLIMIT_FSIZE by ulimit -f",
        },
        read_only_by: match mounted {
            true => "a tmpfs mounted read-only",
            false => "no permission to mount: by file permissions",
        },
        seconds: 0.0,
    };
    if mounted {
        unmount(&mount)?;
    }
    let checkpoint = size(&workload.checkpoint(&workload.clean, 0))?;
    for at in 0..extent.disk_sizes {
        // From no free space to slightly less than a checkpoint.
        let room = checkpoint * at / extent.disk_sizes;
        match mounted {
            true => full(workload, &mount, room)?,
            false => limited(workload, at + 1, extent.disk_sizes)?,
        }
    }
    read_only(workload, &mount, mounted)?;
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

/// A disk with the given free space, for a run that is about to write its last checkpoint.
fn full(workload: &Workload, mount: &Path, room: u64) -> anyhow::Result<()> {
    let what = format!("a disk with {room} bytes left");
    let source = workload.almost_complete("for-the-disk")?;
    mount_sized(mount, 64 << 20)?;
    let run = mount.join("run");
    copy(&source, &run)?;
    let used = blocks_used(mount)?;
    // A page more for appending to metrics.jsonl and similar files.
    mount_resized(mount, used + room + (16 << 10))?;
    let old = workload.checkpoint(&run, 1);
    let before = contents(&old)?;
    let ended = workload.run(workload.resume(&run))?;
    let errors = &ended.errors;
    ensure!(
        !ended.success,
        "{what}: the run succeeded without free space"
    );
    for words in ["No space left on device", "free some space", "--resume"] {
        ensure!(
            errors.contains(words),
            "{what}: {words:?} not in the output:\n{errors}"
        );
    }
    ensure!(
        contents(&old)? == before,
        "{what}: the old checkpoint changed"
    );
    mount_resized(mount, 64 << 20)?;
    let ended = workload.run(workload.resume(&run))?;
    ensure!(ended.success, "{what}: not resumed:\n{}", ended.errors);
    workload.compare(&run, &what)?;
    unmount(mount)
}

/// Without permission to mount: a limit on the size of files.
fn limited(workload: &Workload, part: u64, parts: u64) -> anyhow::Result<()> {
    let run = workload.almost_complete("limited")?;
    let largest = fs::metadata(workload.checkpoint(&run, 1).join("optimizer.safetensors"))?.len();
    let blocks = (largest * part / (parts + 1) / 512).max(64);
    let what = format!("files of at most {blocks} blocks");
    let old = workload.checkpoint(&run, 1);
    let before = contents(&old)?;
    let resume = workload.resume(&run);
    let mut limited = Command::new("sh");
    // If the signal is ignored, the write returns an error.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    limited
        .args(["-c", &script])
        .arg(resume.get_program())
        .args(resume.get_args());
    let ended = workload.run(limited)?;
    ensure!(
        !ended.success,
        "{what}: the run succeeded in spite of the limit"
    );
    for words in ["ulimit -f", "--resume"] {
        let errors = &ended.errors;
        ensure!(
            errors.contains(words),
            "{what}: {words:?} not in the output:\n{errors}"
        );
    }
    ensure!(
        contents(&old)? == before,
        "{what}: the old checkpoint changed"
    );
    let ended = workload.run(workload.resume(&run))?;
    ensure!(ended.success, "{what}: not resumed:\n{}", ended.errors);
    workload.compare(&run, &what)
}

fn read_only(workload: &Workload, mount: &Path, mounted: bool) -> anyhow::Result<()> {
    let source = workload.almost_complete("for-reading")?;
    let run = match mounted {
        true => mount.join("run"),
        false => source.clone(),
    };
    if mounted {
        mount_sized(mount, 64 << 20)?;
        copy(&source, &run)?;
        call("mount", &["-o", "remount,ro"], mount)?;
    } else {
        permit(&run, false)?;
        ensure!(
            fs::write(run.join("probe"), "").is_err(),
            "neither mounting nor permissions can make a directory read-only for this user"
        );
    }
    let before = contents(&run)?;
    let ended = workload.run(workload.resume(&run))?;
    let errors = &ended.errors;
    ensure!(!ended.success, "a read-only directory: the run succeeded");
    for words in ["the run directory must be writable", "--run"] {
        ensure!(
            errors.contains(words),
            "read-only: {words:?} not in the output:\n{errors}"
        );
    }
    ensure!(contents(&run)? == before, "a read-only directory changed");
    match mounted {
        true => call("mount", &["-o", "remount,rw"], mount)?,
        false => permit(&run, true)?,
    }
    let ended = workload.run(workload.resume(&run))?;
    ensure!(
        ended.success,
        "read-only before: not resumed:\n{}",
        ended.errors
    );
    workload.compare(&run, "a directory that was read-only")?;
    match mounted {
        true => unmount(mount),
        false => Ok(()),
    }
}

/// Removes write permission from every directory and file, or restores it.
fn permit(path: &Path, write: bool) -> anyhow::Result<()> {
    let folder = path.is_dir();
    let mode = match (folder, write) {
        (true, true) => 0o755,
        (true, false) => 0o555,
        (false, true) => 0o644,
        (false, false) => 0o444,
    };
    let set = || fs::set_permissions(path, fs::Permissions::from_mode(mode));
    if write {
        set()?;
    }
    if folder {
        for entry in fs::read_dir(path)? {
            permit(&entry?.path(), write)?;
        }
    }
    if !write {
        set()?;
    }
    Ok(())
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let files = contents(folder)?;
    Ok(files.iter().map(|(_, bytes)| bytes.len() as u64).sum())
}

/// Bytes that the files occupy in a tmpfs, in whole pages.
fn blocks_used(mount: &Path) -> anyhow::Result<u64> {
    let output = Command::new("df")
        .args(["--block-size=1", "--output=used"])
        .arg(mount)
        .output()
        .context("cannot run df")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let used = text.lines().nth(1).map(str::trim);
    used.and_then(|used| used.parse().ok())
        .with_context(|| format!("df printed {text:?}"))
}

fn mount_sized(mount: &Path, bytes: u64) -> anyhow::Result<()> {
    let options = format!("size={bytes}");
    call("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], mount)
}

fn mount_resized(mount: &Path, bytes: u64) -> anyhow::Result<()> {
    call("mount", &["-o", &format!("remount,size={bytes}")], mount)
}

fn unmount(mount: &Path) -> anyhow::Result<()> {
    call("umount", &[], mount)
}

fn call(program: &str, arguments: &[&str], mount: &Path) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .arg(mount)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} {arguments:?}: {status}");
    Ok(())
}
