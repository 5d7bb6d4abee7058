//! Preparation of a corpus: from a configuration to two token files, new or reused.
//!
//! The source is read up to three times: once to validate and count it, once to sample text for training a
//! tokenizer, once to tokenise it. Only a bounded amount of text is in memory at any time.
//!
//! A corpus is prepared in a directory with a temporary name, which is renamed when all its files have been
//! written to disk. So a directory with the final name is complete, even after interrupted attempts.

mod contents;
mod corpus;
mod divide;
mod encode;
mod key;
mod lock;
mod sample;
mod scan;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use self::corpus::{Content, Corpus, HeldOut, PreparedSource, Rows, prepare_corpus};
use self::divide::Plan;
use self::lock::lock;
use self::scan::Scan;
use crate::config::{DataConfig, SourceSpec, TRAIN, Validation};
use crate::error::DataError;
use crate::manifest::{Manifest, SkipReport};
use crate::progress::Progress;
use crate::source::cargo_deps::{self, CargoSummary, Package};
use crate::source::cargo_docs::{self, DocsSummary};
use crate::source::{self, Item, Split};
use crate::token_file::TokenFile;
use crate::tokenizer::Tokenizer;

/// The version of the directory's layout and of the tokenisation.
const FORMAT: u32 = 3;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TRAIN_TOKENS: &str = "train.tokens";
pub(crate) const VALIDATION_TOKENS: &str = "validation.tokens";

/// A prepared corpus.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its directory: `tokenizer.json`, `train.tokens`, `validation.tokens`, `manifest.json`.
    pub directory: PathBuf,
    /// The trained or opened tokenizer.
    pub tokenizer: Tokenizer,
    /// Training tokens.
    pub train: TokenFile,
    /// Validation tokens.
    pub validation: TokenFile,
    /// Records skipped with `on_error = "skip"`.
    pub skipped: SkipReport,
    /// The manifest of the directory.
    pub manifest: Manifest,
    /// Whether an existing directory was reused.
    pub reused: bool,
}

/// Prepares a corpus, or reuses a prepared one; paths are relative to the current directory.
///
/// The directory's name contains a hash of everything that determines the result, including the content of
/// every file of the source. If nothing has changed, the directory is opened and every byte of it is
/// verified. A directory with a damaged or missing file is prepared again, and the reason is passed to
/// `progress`. If two processes prepare the same corpus, one waits for the other and reports it to
/// `progress`.
///
/// # Errors
/// Any [`DataError`]: about the configuration, the source, the tokenizer or the disk. A mixture is
/// refused: it is several folders, see [`prepare_corpus`]. So is a task, which has none.
pub fn prepare(config: &DataConfig, progress: &dyn Progress) -> Result<Prepared, DataError> {
    config.check()?;
    if let SourceSpec::Mixture(sources) = &config.source {
        return Err(DataError::Config {
            key: "data.source",
            found: format!("a mixture of {} sources", sources.len()),
            allowed: "one source; the sources of a mixture are prepared separately".to_owned(),
        });
    }
    if config.source.task().is_some() {
        return Err(DataError::Config {
            key: "data.source",
            found: config.source.name(),
            allowed: "a source of text; there is nothing to prepare for a task".to_owned(),
        });
    }
    let source = locate(config)?;
    let opened = match config.tokenizer.as_str() {
        TRAIN => None,
        path => Some(Tokenizer::open(Path::new(path))?),
    };
    let key = key::key(config, &source, opened.as_ref(), progress)?;
    let name = format!("{}-{}", config.source.name(), &key[..16]);
    let directory = config.cache.join(&name);

    // A directory with this name is complete, so no lock is needed to read it.
    if let Ok(prepared) = open(&directory, &key) {
        return Ok(prepared);
    }
    let _lock = lock(&config.cache, &name, progress)?;
    match open(&directory, &key) {
        Ok(prepared) => return Ok(prepared),
        // If the disk cannot be read, do not write to it.
        Err(DataError::Io { path, source }) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(DataError::Io { path, source });
        }
        Err(error) if directory.exists() => {
            progress.done(&format!("{error}; preparing it again"));
        }
        Err(_) => {}
    }
    // While this process holds the lock, leftovers of earlier attempts belong to no other process.
    let partial = config.cache.join(format!(".{name}.partial"));
    for path in [&partial, &directory] {
        if path.exists() {
            fs::remove_dir_all(path).map_err(DataError::io(path))?;
        }
    }
    fs::create_dir(&partial).map_err(DataError::io(&partial))?;
    let built = build(
        config,
        source.clone(),
        opened.as_ref(),
        key.clone(),
        &partial,
        progress,
    );
    let built = built.and_then(|()| {
        // The directory is named by the source's content before it was read.
        match key::key(config, &source, opened.as_ref(), progress)? == key {
            true => Ok(()),
            false => Err(DataError::SourceRewritten {
                path: config
                    .source
                    .paths()
                    .first()
                    .unwrap_or(&Path::new(""))
                    .to_path_buf(),
            }),
        }
    });
    if let Err(error) = built {
        // `error` matters more than an error of the clean-up; the next attempt cleans up again.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    fs::rename(&partial, &directory).map_err(DataError::io(&directory))?;
    sync_folder(&config.cache)?;
    let prepared = open(&directory, &key)?;
    Ok(Prepared {
        reused: false,
        ..prepared
    })
}

/// The files of the source, before any of them is read.
#[derive(Clone)]
enum Located {
    Packages {
        packages: Vec<Package>,
        /// Files of a separate validation source.
        validation: Vec<Item>,
    },
    Files(Vec<Item>),
}

fn locate(config: &DataConfig) -> Result<Located, DataError> {
    let (own, train) = match &config.validation {
        Validation::Path(path) => {
            let own = source::find(&[Path::new(path)], Some(Split::Validation))?;
            (own, Some(Split::Train))
        }
        Validation::Aligned(files) => {
            let own = vec![source::aligned::find(files, Some(Split::Validation))?];
            (own, Some(Split::Train))
        }
        Validation::Fraction(_) => (Vec::new(), None),
    };
    let mut items = match &config.source {
        source if source.is_cargo_deps() || source.is_cargo_docs() => {
            return Ok(Located::Packages {
                packages: cargo_deps::packages(Path::new("."))?,
                validation: own,
            });
        }
        SourceSpec::Aligned(files) => vec![source::aligned::find(files, train)?],
        source => source::find(&source.paths(), train)?,
    };
    items.extend(own);
    Ok(Located::Files(items))
}

/// Reads the source and writes all files of a prepared directory.
fn build(
    config: &DataConfig,
    source: Located,
    tokenizer: Option<&Tokenizer>,
    key: String,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<(), DataError> {
    let Survey { scan, plan, made } = survey(config, source, progress)?;
    let tokenizer = match tokenizer {
        Some(tokenizer) => tokenizer.clone(),
        None => {
            let sample = sample::sample(&scan, &plan, config, sample::SAMPLE_BYTES, progress)?;
            progress.stage("training the tokenizer", None);
            let tokenizer = Tokenizer::train(sample.into_iter(), config.vocab_size)?;
            progress.done(&format!(
                "{} tokens in the vocabulary",
                tokenizer.vocab_size()
            ));
            tokenizer
        }
    };
    let counts = encode::encode(&scan, &plan, config, &tokenizer, folder, progress)?;
    let manifest = Manifest {
        format: FORMAT,
        key,
        config: config.clone(),
        files: scan.items.len() as u64,
        train: counts.train,
        validation: counts.validation,
        vocab_size: tokenizer.vocab_size(),
        tokenizer: blake3::hash(tokenizer.json()).to_hex().to_string(),
        cargo: made.cargo,
        docs: made.docs,
        skipped: scan.skipped,
    };
    write(&folder.join(TOKENIZER), tokenizer.json())?;
    write(&folder.join(MANIFEST), &manifest.to_json())?;
    sync_folder(folder)
}

/// A source that was read once.
struct Survey {
    scan: Scan,
    plan: Plan,
    made: Made,
}

/// What was chosen from the locked dependencies, if they are the source.
#[derive(Default)]
struct Made {
    cargo: Option<CargoSummary>,
    docs: Option<DocsSummary>,
}

/// Reads the source once, and divides it.
fn survey(
    config: &DataConfig,
    source: Located,
    progress: &dyn Progress,
) -> Result<Survey, DataError> {
    let (items, made) = collect(config, source, progress)?;
    let scan = scan::scan(&items, config, progress)?;
    let plan = Plan::new(&scan, config);
    Ok(Survey { scan, plan, made })
}

/// The files to read; for the locked dependencies this evaluates the filters on every file.
fn collect(
    config: &DataConfig,
    source: Located,
    progress: &dyn Progress,
) -> Result<(Vec<Item>, Made), DataError> {
    let (packages, validation) = match source {
        Located::Files(items) => return Ok((items, Made::default())),
        Located::Packages {
            packages,
            validation,
        } => (packages, validation),
    };
    let held_out = match config.validation {
        Validation::Fraction(fraction) => Some(fraction),
        Validation::Path(_) | Validation::Aligned(_) => None,
    };
    progress.stage("choosing sources of the locked dependencies", None);
    let advance = |bytes| progress.advance(bytes);
    let (mut items, made) = match config.source.is_cargo_docs() {
        true => {
            let (items, cargo, docs) = cargo_docs::corpus(&packages, held_out, &advance)?;
            progress.done(&format!(
                "{} pairs of {} documented functions in {} files, {} held out",
                docs.pairs + docs.held_out,
                docs.functions,
                docs.files,
                docs.held_out,
            ));
            let (cargo, docs) = (Some(cargo), Some(docs));
            (items, Made { cargo, docs })
        }
        false => {
            let (items, cargo) = cargo_deps::corpus(&packages, held_out, &advance)?;
            progress.done(&format!(
                "{} files of {} crates, {:.1} MB; {} crates held out, {:.1} MB",
                cargo.files,
                cargo.crates,
                cargo.bytes as f64 / 1e6,
                cargo.held_out.len(),
                cargo.held_out_bytes as f64 / 1e6,
            ));
            let (cargo, docs) = (Some(cargo), None);
            (items, Made { cargo, docs })
        }
    };
    items.extend(validation);
    Ok((items, made))
}

/// Opens a prepared directory and checks that its files are complete and consistent.
fn open(directory: &Path, key: &str) -> Result<Prepared, DataError> {
    let manifest = Manifest::open(&directory.join(MANIFEST))?;
    let differs = |what, found: String, expected: String| DataError::Inconsistent {
        path: directory.to_path_buf(),
        what,
        found,
        expected,
    };
    if manifest.format != FORMAT || manifest.key != key {
        return Err(differs("the key", manifest.key, key.to_owned()));
    }
    let tokenizer = Tokenizer::open(&directory.join(TOKENIZER))?;
    let hash = blake3::hash(tokenizer.json()).to_hex();
    if manifest.tokenizer != hash.as_str() {
        let found = hash.to_string();
        return Err(differs(
            "the hash of tokenizer.json",
            found,
            manifest.tokenizer,
        ));
    }
    let train = TokenFile::open(&directory.join(TRAIN_TOKENS))?;
    let validation = TokenFile::open(&directory.join(VALIDATION_TOKENS))?;
    for (file, tokens) in [
        (&train, manifest.train.tokens),
        (&validation, manifest.validation.tokens),
    ] {
        if file.vocab_hash() != tokenizer.vocab_hash() {
            let hex = |hash: [u8; 32]| blake3::Hash::from(hash).to_hex().to_string();
            let (found, expected) = (hex(file.vocab_hash()), hex(tokenizer.vocab_hash()));
            return Err(differs("the vocabulary's hash", found, expected));
        }
        if file.len() != tokens {
            let (found, expected) = (file.len().to_string(), tokens.to_string());
            return Err(differs("the number of tokens", found, expected));
        }
        file.verify()?;
    }
    Ok(Prepared {
        directory: directory.to_path_buf(),
        tokenizer,
        train,
        validation,
        skipped: manifest.skipped.clone(),
        manifest,
        reused: true,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    use std::io::Write;
    let mut file = File::create(path).map_err(DataError::io(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(DataError::io(path))
}

/// Makes a directory's new entries durable, if the system supports it.
fn sync_folder(folder: &Path) -> Result<(), DataError> {
    if cfg!(unix) {
        let opened = File::open(folder).map_err(DataError::io(folder))?;
        opened.sync_all().map_err(DataError::io(folder))?;
    }
    Ok(())
}
