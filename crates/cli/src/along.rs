//! A new model directory that is made from another one: what goes along with the weights.

use std::path::Path;

use anyhow::Context;
use iiet_data::TaskSpec;
use iiet_files::{Manifest, NewDirectory, open_regular, write_file};

use crate::print::outln;

pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Files that belong to a model and have nothing to do with its weights.
const ALONG: [&str; 10] = [
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
    TaskSpec::FILE,
];

/// Begins a directory, which must not exist yet, or be empty.
pub(crate) fn create(out: &Path) -> anyhow::Result<NewDirectory> {
    NewDirectory::create(out).with_context(|| out.display().to_string())
}

/// Copies the other files of a model beside the weights of the new one.
pub(crate) fn copy_along(
    model: &Path,
    directory: &NewDirectory,
    manifest: &mut Manifest,
) -> anyhow::Result<()> {
    for name in ALONG {
        let from = model.join(name);
        if from.exists() {
            let mut file = open_regular(&from).with_context(|| from.display().to_string())?;
            let to = directory.partial().join(name);
            let copied = write_file(&to, |to| std::io::copy(&mut file, to).map(drop));
            let record = copied.with_context(|| format!("copying {}", from.display()))?;
            manifest.add(name, record);
        }
    }
    Ok(())
}

/// Completes the directory, and prints its path.
pub(crate) fn finish(
    directory: NewDirectory,
    manifest: &Manifest,
    out: &Path,
) -> anyhow::Result<()> {
    let place = || out.display().to_string();
    manifest.write(directory.partial())?;
    directory.finish().with_context(place)?;
    outln!("{}", out.display())
}
