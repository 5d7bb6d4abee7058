//! Which directory a path means.

use std::path::{Path, PathBuf};

use super::CONFIG;

/// The model's directory in that of a run.
const MODEL: &str = "model";
/// The directory of a run's checkpoints, of which `step-N` is the one after N steps.
const CHECKPOINTS: &str = "checkpoints";

/// The model directory that a path means: the `model` in a run's directory, or before it is written the newest of the run's
/// checkpoints; else the path itself.
pub fn model_directory(path: &Path) -> PathBuf {
    if is_model(path) {
        return path.to_owned();
    }
    let within = path.join(MODEL);
    match is_model(&within) {
        true => within,
        false => newest_checkpoint(path).unwrap_or(path.to_owned()),
    }
}

fn is_model(path: &Path) -> bool {
    path.join(CONFIG).exists()
}

fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    let entries = run.join(CHECKPOINTS).read_dir().ok()?.flatten();
    let checkpoints = entries.filter_map(|entry| {
        let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse();
        is_model(&entry.path()).then_some((step.ok()?, entry.path()))
    });
    let newest = checkpoints.max_by_key(|(step, _): &(u64, PathBuf)| *step);
    newest.map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_run_directory_means_its_model() {
        let run = tempfile::tempdir().unwrap();
        let model = run.path().join("model");
        assert_eq!(model_directory(run.path()), run.path());
        // Before the run has ended, its newest checkpoint that is complete.
        let checkpoints = run.path().join("checkpoints");
        for name in ["step-9", "step-10", "step-11", "step-12.tmp"] {
            fs::create_dir_all(checkpoints.join(name)).unwrap();
        }
        assert_eq!(model_directory(run.path()), run.path());
        for name in ["step-9", "step-10", "step-12.tmp"] {
            fs::write(checkpoints.join(name).join("config.json"), "{}").unwrap();
        }
        assert_eq!(model_directory(run.path()), checkpoints.join("step-10"));
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        assert_eq!(model_directory(run.path()), model);
        assert_eq!(model_directory(&model), model);
        // A directory that is a model itself.
        fs::write(run.path().join("config.json"), "{}").unwrap();
        assert_eq!(model_directory(run.path()), run.path());
    }
}
