//! Which directory a path means.

use std::path::{Path, PathBuf};

use super::CONFIG;

/// The model's directory in that of a run.
const MODEL: &str = "model";

/// The model directory that a path means: the `model` in a run's directory, else the path itself.
pub fn model_directory(path: &Path) -> PathBuf {
    let within = path.join(MODEL);
    match !path.join(CONFIG).exists() && within.join(CONFIG).exists() {
        true => within,
        false => path.to_owned(),
    }
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
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        assert_eq!(model_directory(run.path()), model);
        assert_eq!(model_directory(&model), model);
        // A directory that is a model itself.
        fs::write(run.path().join("config.json"), "{}").unwrap();
        assert_eq!(model_directory(run.path()), run.path());
    }
}
