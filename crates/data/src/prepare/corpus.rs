//! One source, or several mixed by weight, as prepared folders with one tokenizer; or a task, which
//! needs no folder.
//!
//! Each source of a mixture has a separate directory, as if it were prepared alone with the given tokenizer,
//! so with a tokenizer from a file other weights require no new preparation. A trained tokenizer samples the
//! sources in proportion to their weights.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::lock::lock;
use super::{FORMAT, Prepared, Survey, TOKENIZER, locate, prepare, survey, sync_folder, write};
use crate::batches::examples;
use crate::config::{DataConfig, SourceSpec, TRAIN, Validation, WeightedSource};
use crate::error::DataError;
use crate::examples::{Examples, WeightedExamples};
use crate::prepare::{key, sample};
use crate::progress::Progress;
use crate::sequence_pairs::SequencePairs;
use crate::tasks::{Part, TaskExamples, TaskSpec};
use crate::token_file::TokenFile;
use crate::tokenizer::Tokenizer;

/// The data of a configuration.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The tokenizer of all sources.
    pub tokenizer: Tokenizer,
    /// At least one.
    pub sources: Vec<PreparedSource>,
    /// Whether all sources share one validation text.
    shared_validation: bool,
}

/// One source of a corpus.
#[derive(Clone, Debug)]
pub struct PreparedSource {
    /// Its name in reports.
    pub name: String,
    /// Its weight as given; 1 for a single source.
    pub weight: f64,
    /// What it holds.
    pub content: Content,
}

/// What a source holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A folder of tokens.
    Text(Box<Prepared>),
    /// A task whose examples are computed.
    Task(TaskSpec),
}

impl PreparedSource {
    /// The folder of a source of text.
    pub fn prepared(&self) -> Option<&Prepared> {
        match &self.content {
            Content::Text(prepared) => Some(prepared),
            Content::Task(_) => None,
        }
    }

    /// What is trained on.
    pub fn train(&self) -> Rows {
        match &self.content {
            Content::Text(prepared) => Rows::Text(prepared.train.clone()),
            Content::Task(spec) => Rows::Task(spec.clone(), Part::Training),
        }
    }

    /// What is held out.
    pub fn validation(&self) -> Rows {
        match &self.content {
            Content::Text(prepared) => Rows::Text(prepared.validation.clone()),
            Content::Task(spec) => Rows::Task(spec.clone(), Part::HeldOut),
        }
    }
}

/// What is held out to validate on.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// The source that it was held out from, or `validation` for a separate text.
    pub name: String,
    /// The weight of its loss in the total.
    pub weight: f64,
    /// The tokens or examples.
    pub rows: Rows,
}

/// One part of a source, to make rows of.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Tokens of a text, of prompts and completions, or of pairs of source and target.
    Text(TokenFile),
    /// The examples of a task.
    Task(TaskSpec, Part),
}

impl Rows {
    /// The examples for rows of `seq` tokens.
    ///
    /// # Errors
    /// Those of [`Batches::new`](crate::Batches::new) and [`TaskExamples::new`];
    /// [`DataError::DocumentKind`] for pairs of source and target, which are no rows of equal length.
    pub fn examples(&self, seq: usize) -> Result<Arc<dyn Examples>, DataError> {
        match self {
            Self::Text(tokens) => examples(tokens.clone(), seq),
            Self::Task(spec, part) => Ok(Arc::new(TaskExamples::new(spec.clone(), *part, seq)?)),
        }
    }

    /// The pairs of source and target with at most `seq` tokens on each side; none if the rows are others.
    ///
    /// # Errors
    /// Those of [`SequencePairs::new`].
    pub fn pairs(&self, seq: usize) -> Result<Option<SequencePairs>, DataError> {
        match self {
            Self::Text(tokens) if tokens.has_sources() => {
                SequencePairs::new(tokens.clone(), seq).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The tokens of a text; a task has no end of them.
    pub fn text(&self) -> Option<&TokenFile> {
        match self {
            Self::Text(tokens) => Some(tokens),
            Self::Task(..) => None,
        }
    }

    /// blake3 of all that the rows follow from: equal for rows of equal content.
    pub fn content_hash(&self) -> [u8; 32] {
        match self {
            Self::Text(tokens) => tokens.content_hash(),
            Self::Task(spec, part) => spec.hash(*part),
        }
    }
}

impl Corpus {
    /// blake3 of the tokenizer and of all that is trained and validated on: equal for corpora of equal
    /// content, wherever they lie. Weights do not count.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(blake3::hash(self.tokenizer.json()).as_bytes());
        for source in &self.sources {
            hash.update(&source.train().content_hash());
            hash.update(&source.validation().content_hash());
        }
        *hash.finalize().as_bytes()
    }

    /// The task, if that is what is trained on.
    pub fn task(&self) -> Option<&TaskSpec> {
        self.sources
            .iter()
            .find_map(|source| match &source.content {
                Content::Task(spec) => Some(spec),
                Content::Text(_) => None,
            })
    }

    /// What each source gives to train on, and its weight.
    pub fn train_rows(&self) -> Vec<(Rows, f64)> {
        let sources = self.sources.iter();
        sources
            .map(|source| (source.train(), source.weight))
            .collect()
    }

    /// The training examples of all sources and their weights, for
    /// [`MixedBatches::of`](crate::MixedBatches::of).
    ///
    /// # Errors
    /// Those of [`Rows::examples`].
    pub fn train(&self, seq: usize) -> Result<Vec<WeightedExamples>, DataError> {
        let sources = self.train_rows().into_iter();
        sources
            .map(|(rows, weight)| Ok((rows.examples(seq)?, weight)))
            .collect()
    }

    /// The beginnings of the validation texts, of `tokens` tokens each or all there are; empty for a
    /// task.
    ///
    /// # Errors
    /// [`DataError`] if tokens cannot be read or decoded.
    pub fn held_out_text(&self, tokens: u64) -> Result<String, DataError> {
        let held_out = self.held_out();
        let texts = held_out.iter().filter_map(|held_out| held_out.rows.text());
        let beginning = |text: &TokenFile| {
            let tokens = text.read(0..tokens.min(text.len()))?;
            self.tokenizer.decode(&tokens)
        };
        texts.map(beginning).collect()
    }

    /// Whether the data are pairs of source and target.
    pub fn has_sources(&self) -> bool {
        let sources = self.sources.iter();
        let mut prepared = sources.filter_map(PreparedSource::prepared);
        prepared.any(|prepared| prepared.train.has_sources())
    }

    /// What is held out of each source, or the one text that all share.
    pub fn held_out(&self) -> Vec<HeldOut> {
        let of = |source: &PreparedSource| HeldOut {
            name: source.name.clone(),
            weight: source.weight,
            rows: source.validation(),
        };
        match self.shared_validation {
            true => vec![HeldOut {
                name: "validation".into(),
                weight: 1.0,
                ..of(&self.sources[0])
            }],
            false => self.sources.iter().map(of).collect(),
        }
    }
}

/// Prepares every source of a configuration, or reuses prepared ones.
///
/// # Errors
/// The errors of [`prepare`].
pub fn prepare_corpus(config: &DataConfig, progress: &dyn Progress) -> Result<Corpus, DataError> {
    config.check()?;
    let alone = |tokenizer, content| Corpus {
        tokenizer,
        sources: vec![PreparedSource {
            name: config.source.name(),
            weight: 1.0,
            content,
        }],
        shared_validation: false,
    };
    let members = match &config.source {
        SourceSpec::Mixture(members) => members,
        SourceSpec::Task(spec) => {
            return Ok(alone(spec.tokenizer()?, Content::Task(spec.clone())));
        }
        _ => {
            let prepared = prepare(config, progress)?;
            let tokenizer = prepared.tokenizer.clone();
            return Ok(alone(tokenizer, Content::Text(Box::new(prepared))));
        }
    };
    let member_alone = |member: &WeightedSource| DataConfig {
        source: SourceSpec::One(member.path.clone()),
        ..config.clone()
    };
    let tokenizer = match config.tokenizer.as_str() {
        TRAIN => {
            let members: Vec<_> = members
                .iter()
                .map(|m| (member_alone(m), m.weight))
                .collect();
            let path = train_tokenizer(config, &members, progress)?;
            path.display().to_string()
        }
        path => path.to_owned(),
    };
    let prepared = members
        .iter()
        .map(|member| {
            let config = DataConfig {
                tokenizer: tokenizer.clone(),
                ..member_alone(member)
            };
            prepare(&config, progress)
        })
        .collect::<Result<Vec<_>, DataError>>()?;
    let tokenizer = prepared[0].tokenizer.clone();
    let sources = members
        .iter()
        .zip(prepared)
        .map(|(member, prepared)| PreparedSource {
            name: member.label(),
            weight: member.weight,
            content: Content::Text(Box::new(prepared)),
        })
        .collect();
    Ok(Corpus {
        tokenizer,
        sources,
        shared_validation: !matches!(config.validation, Validation::Fraction(_)),
    })
}

/// The file of a tokenizer trained on all sources of the mixture, which may exist already.
fn train_tokenizer(
    config: &DataConfig,
    members: &[(DataConfig, f64)],
    progress: &dyn Progress,
) -> Result<PathBuf, DataError> {
    let mut hash = blake3::Hasher::new();
    hash.update(&FORMAT.to_le_bytes());
    for (member, weight) in members {
        let key = key::key(member, &locate(member)?, None, progress)?;
        hash.update(key.as_bytes()).update(&weight.to_le_bytes());
    }
    let key = hash.finalize().to_hex();
    let name = format!("{}-tokenizer-{}", config.source.name(), &key[..16]);
    let directory = config.cache.join(&name);
    let path = directory.join(TOKENIZER);
    let _lock = lock(&config.cache, &name, progress)?;
    // Damage cannot be detected from its own content, so a hash is stored next to it.
    let record = directory.join("blake3");
    let whole = |tokenizer: Tokenizer| {
        let record = fs::read_to_string(&record).unwrap_or_default();
        record.trim() == blake3::hash(tokenizer.json()).to_hex().as_str()
    };
    match Tokenizer::open(&path).map(whole) {
        Ok(true) => return Ok(path),
        Ok(false) => progress.done(&format!("{}: damaged; training it again", path.display())),
        Err(error) if path.exists() => progress.done(&format!("{error}; training it again")),
        Err(_) => {}
    }
    let sum: f64 = members.iter().map(|(_, weight)| weight).sum();
    let mut texts = Vec::new();
    for (member, weight) in members {
        let Survey { scan, plan, .. } = survey(member, locate(member)?, progress)?;
        let budget = (sample::SAMPLE_BYTES as f64 * weight / sum) as u64;
        texts.extend(sample::sample(&scan, &plan, member, budget, progress)?);
    }
    progress.stage("training the tokenizer", None);
    let tokenizer = Tokenizer::train(texts.into_iter(), config.vocab_size)?;
    progress.done(&format!(
        "{} tokens in the vocabulary",
        tokenizer.vocab_size()
    ));
    fs::create_dir_all(&directory).map_err(DataError::io(&directory))?;
    let _ = fs::remove_file(&record); // a stale hash must not be compared with a new file
    write(&path, tokenizer.json())?;
    let hash = blake3::hash(tokenizer.json()).to_hex();
    write(&record, format!("{hash}\n").as_bytes())?;
    sync_folder(&directory)?;
    sync_folder(&config.cache)?;
    Ok(path)
}
