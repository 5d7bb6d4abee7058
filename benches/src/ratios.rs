//! Ratios of the medians that criterion has measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

/// The directory of criterion's results, relative to the benchmark binaries.
fn results() -> Option<PathBuf> {
    if let Some(home) = std::env::var_os("CRITERION_HOME") {
        return Some(home.into());
    }
    // target/PROFILE/deps/BENCH-HASH
    let binary = std::env::current_exe().ok()?;
    Some(binary.ancestors().nth(3)?.join("criterion"))
}

/// The median of a benchmark in nanoseconds, if it was measured since `since`.
fn median(group: &Path, function: &str, since: SystemTime) -> Option<f64> {
    let path = group.join(function).join("new/estimates.json");
    if fs::metadata(&path).ok()?.modified().ok()? < since {
        return None;
    }
    let estimates: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

/// For every group with both functions measured since `since`: their medians and the ratio of
/// `slow` to `fast`.
pub fn print(slow: &str, fast: &str, since: SystemTime) {
    let Some(folder) = results() else {
        return;
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut groups: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    groups.sort();
    println!("{:<36}{fast:>12}{slow:>12}   ratio", "median, ms");
    for group in groups {
        let medians = (median(&group, slow, since), median(&group, fast, since));
        if let (Some(slow), Some(fast)) = medians {
            let name = group.file_name().unwrap_or_default().to_string_lossy();
            let ratio = slow / fast;
            let (fast, slow) = (fast / 1e6, slow / 1e6);
            println!("{name:<36}{fast:>12.3}{slow:>12.3}{ratio:>7.2}x");
        }
    }
}
