//! Checkpoints: everything that a run needs to resume exactly.
//!
//! A checkpoint is a model directory with `optimizer.safetensors`, `state.json` and the run's `config.toml`
//! added. It is written under a temporary name, every file is synced, the manifest is written last, and then
//! it is renamed. A directory without a valid manifest is not a checkpoint.
//!
//! Of several processes, the first writes everything but the moments of a sharded optimiser, of which each writes
//! its part, `optimizer-00002-of-00004.safetensors`; any number of processes can read them.

mod moments;
mod retention;
mod state;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_data::{TaskSpec, Tokenizer};
use iiet_files::{
    FileRecord, Manifest, beside, install_directory, read_regular, remove_directory, write_file,
};
use iiet_model::{ModelError, SaveOptions, SavedModel, save};

pub(crate) use self::retention::{Retention, remove_leftovers};
pub use self::state::Difference;
pub(crate) use self::state::{DataPosition, Identity, RandomState, State};
use crate::optimizer::{ModelOptimizer, Moments};
use crate::ranks::Part;
use crate::{Ranks, RunDirectory, Shard, TrainError, TrainedModel};

const STATE: &str = "state.json";
const CONFIG: &str = "config.toml";
const TOKENIZER: &str = "tokenizer.json";
/// Without this, `transformers` uses LLaMA's tokenizer for every LLaMA model.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The result of [`read_newest`].
pub(crate) struct Checkpoint<M> {
    pub(crate) path: PathBuf,
    pub(crate) state: State,
    pub(crate) model: M,
    pub(crate) moments: std::collections::BTreeMap<String, Moments>,
}

/// The content of a checkpoint.
pub(crate) struct Contents<'a, M> {
    pub(crate) state: State,
    /// Without autodiff.
    pub(crate) model: &'a M,
    pub(crate) optimizer: &'a ModelOptimizer,
    pub(crate) tokenizer: &'a Tokenizer,
    /// What is trained on, if it is a task.
    pub(crate) task: Option<&'a TaskSpec>,
    /// The text of the run's `config.toml`.
    pub(crate) config: &'a str,
    /// What each process has a part of.
    pub(crate) shard: Shard,
}

/// Writes `checkpoints/step-N`, and then removes all but the newest `keep` and the best. Every process calls it.
///
/// # Errors
///
/// [`TrainError::NotWritten`]; existing checkpoints are unchanged.
pub(crate) fn write<M: SavedModel>(
    run: &RunDirectory,
    contents: Contents<'_, M>,
    retention: &mut Retention,
    keep: usize,
    ranks: &Ranks,
) -> Result<PathBuf, TrainError> {
    let step = contents.state.step;
    let path = run.checkpoints().join(format!("step-{step}"));
    let partial = beside(&path, "partial");
    if let Err(source) = write_files(&path, &partial, contents, ranks) {
        // Removes the incomplete checkpoint, as the disk may be full. `error` matters more than an error of
        // this removal.
        let _ = ranks.is_first().then(|| remove_directory(&partial));
        let last = retention.newest();
        return Err(TrainError::NotWritten {
            path,
            last: last.map_or_else(|| "none".into(), |path| path.display().to_string()),
            source: Box::new(source),
        });
    }
    let retained = ranks
        .is_first()
        .then(|| retention.written(run, step, keep))
        .transpose();
    ranks.all_succeeded(retained)?;
    Ok(path)
}

fn write_files<M: SavedModel>(
    path: &Path,
    partial: &Path,
    contents: Contents<'_, M>,
    ranks: &Ranks,
) -> Result<(), TrainError> {
    let Contents {
        mut state,
        model,
        optimizer,
        tokenizer,
        task,
        config,
        shard,
    } = contents;
    let begun = ranks.is_first().then(|| {
        remove_directory(partial).map_err(TrainError::io(partial))?;
        let mut manifest = save(model, partial, &SaveOptions::default())?;
        add_tokenizer(tokenizer, task, partial, &mut manifest)?;
        Ok::<_, TrainError>(manifest)
    });
    let manifest = ranks.all_succeeded(begun.transpose())?;

    let part = match shard {
        Shard::None => Part::WHOLE,
        Shard::Optimizer => Part::of(ranks),
    };
    let moments = &optimizer.moments;
    let name = moments::file_name(part);
    let writes = ranks.is_first() || shard == Shard::Optimizer;
    let record = writes.then(|| moments::write(&partial.join(&name), moments));
    let record = ranks.all_succeeded(record.transpose())?;
    let records = ranks.gather(&record.map(|record| (name, record)))?;

    let ended = manifest.map(|mut manifest| {
        for (name, record) in records.into_iter().flatten() {
            manifest.add(&name, record);
        }
        let updates = moments.iter().map(|(name, m)| (name.clone(), m.updates));
        state.updates = updates.collect();
        let json = serde_json::to_string_pretty(&state).expect("invariant: plain data serialises");
        for (name, text) in [(STATE, json.as_str()), (CONFIG, config)] {
            manifest.add(name, write_text(&partial.join(name), text)?);
        }
        manifest.write(partial)?;
        install_directory(partial, path).map_err(TrainError::io(path))
    });
    ranks.all_succeeded(ended.transpose())?;
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<FileRecord, TrainError> {
    write_file(path, |file| file.write_all(text.as_bytes())).map_err(TrainError::io(path))
}

/// Writes the tokenizer of a model directory, how other tools are to read it, and what task the model is
/// trained on, if it is one.
fn add_tokenizer(
    tokenizer: &Tokenizer,
    task: Option<&TaskSpec>,
    dir: &Path,
    manifest: &mut Manifest,
) -> Result<(), TrainError> {
    let end = tokenizer.document_end().and_then(|id| tokenizer.token(id));
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "clean_up_tokenization_spaces": false,
    });
    let config = format!("{config:#}\n");
    let task = task.map(|task| {
        let json = serde_json::to_string_pretty(task);
        json.expect("invariant: plain data serialises") + "\n"
    });
    let files = [
        (TOKENIZER, tokenizer.json()),
        (TOKENIZER_CONFIG, config.as_bytes()),
    ];
    let task = task.iter().map(|json| (TaskSpec::FILE, json.as_bytes()));
    for (name, bytes) in files.into_iter().chain(task) {
        let path = dir.join(name);
        let record =
            write_file(&path, |file| file.write_all(bytes)).map_err(TrainError::io(&path))?;
        manifest.add(name, record);
    }
    Ok(())
}

/// Writes the run's `model/` atomically.
pub(crate) fn export<M: SavedModel>(
    run: &RunDirectory,
    model: &M,
    tokenizer: &Tokenizer,
    task: Option<&TaskSpec>,
) -> Result<(), TrainError> {
    let path = run.model();
    let partial = beside(&path, "partial");
    remove_directory(&partial).map_err(TrainError::io(&partial))?;
    let mut manifest = save(model, &partial, &SaveOptions::default())?;
    add_tokenizer(tokenizer, task, &partial, &mut manifest)?;
    manifest.write(&partial)?;
    install_directory(&partial, &path).map_err(TrainError::io(&path))
}

/// The directories named `step-N`, newest first.
pub(crate) fn list(run: &RunDirectory) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = run.checkpoints();
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder))? {
        let path = entry.map_err(TrainError::io(&folder))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step: u64| (step, path)));
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// The newest complete checkpoint, if there is any checkpoint, and the reasons why newer ones were passed
/// over.
///
/// # Errors
///
/// [`TrainError::NothingToResume`] if there are checkpoints and none is complete.
pub(crate) fn read_newest<M: TrainedModel>(
    run: &RunDirectory,
    device: &Device,
    part: Part,
) -> Result<(Option<Checkpoint<M>>, Vec<String>), TrainError> {
    let mut passed = Vec::new();
    for (step, path) in list(run)? {
        match read(step, &path, device, part) {
            Ok(checkpoint) => return Ok((Some(checkpoint), passed)),
            Err(error) => passed.push(format!("{}: {error}", path.display())),
        }
    }
    if passed.is_empty() {
        return Ok((None, passed));
    }
    let path = run.checkpoints();
    Err(TrainError::NothingToResume { path, passed })
}

/// The `config.toml` of the newest checkpoint if that is complete; the run's own if there is no checkpoint.
pub(crate) fn newest_config(run: &RunDirectory) -> PathBuf {
    let whole =
        |path: &Path| -> Result<(), TrainError> { Ok(manifest(path)?.verify(path, [CONFIG])?) };
    let checkpoints = list(run).unwrap_or_default();
    let newest = checkpoints.iter().find(|(_, path)| whole(path).is_ok());
    newest.map_or_else(|| run.config(), |(_, path)| path.join(CONFIG))
}

fn read<M: TrainedModel>(
    step: u64,
    path: &Path,
    device: &Device,
    part: Part,
) -> Result<Checkpoint<M>, TrainError> {
    let manifest = manifest(path)?;
    let refuse = |name: &str| TrainError::Checkpoint {
        path: path.join(iiet_files::MANIFEST),
        reason: format!("it records no {name}"),
    };
    let optimizer = moments::files(&manifest).map_err(|missing| refuse(&missing))?;
    let mut others = [STATE, CONFIG, TOKENIZER].into_iter();
    if let Some(name) = others.find(|name| !manifest.contains(name)) {
        return Err(refuse(name));
    }
    // This verifies every file against the manifest.
    let model = M::read(path, device)?;
    let state = read_state(path)?;
    if state.step != step {
        let reason = format!("step {} in a directory for step {step}", state.step);
        let path = path.join(STATE);
        return Err(TrainError::Checkpoint { path, reason });
    }
    let files: Vec<PathBuf> = optimizer.iter().map(|name| path.join(name)).collect();
    let moments = moments::read(&files, &model, &state.updates, (device, part))?;
    let path = path.to_owned();
    Ok(Checkpoint {
        path,
        state,
        model,
        moments,
    })
}

fn manifest(path: &Path) -> Result<Manifest, TrainError> {
    Manifest::read(path)?.ok_or_else(|| TrainError::Checkpoint {
        path: path.join(iiet_files::MANIFEST),
        reason: "no manifest, so the checkpoint is incomplete".into(),
    })
}

fn read_state(path: &Path) -> Result<State, TrainError> {
    let path = path.join(STATE);
    let text = read_regular(&path).map_err(TrainError::io(&path))?;
    let refuse = |reason: String| TrainError::Checkpoint {
        path: path.clone(),
        reason,
    };
    let state: State = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
    match state.format == state::FORMAT {
        true => Ok(state),
        false => {
            let (found, allowed) = (state.format, state::FORMAT);
            Err(refuse(format!("format is {found}; allowed: {allowed}")))
        }
    }
}

/// Whether an error reports a non-finite weight.
pub(crate) fn not_finite(error: &TrainError) -> Option<&str> {
    match error {
        TrainError::Model(ModelError::NotFinite { name, .. }) => Some(name),
        TrainError::NotWritten { source, .. } => not_finite(source),
        _ => None,
    }
}
