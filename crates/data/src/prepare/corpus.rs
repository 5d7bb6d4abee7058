//! One source, or several mixed by weight, as prepared folders with one tokenizer.
//!
//! Each source of a mixture has a folder of its own, as if it were alone with the tokenizer given,
//! so that with a tokenizer from a file other weights cost no preparation. A tokenizer that is
//! trained sees the sources in proportion to their weights.

use std::fs;
use std::path::PathBuf;

use super::lock::lock;
use super::{FORMAT, Prepared, TOKENIZER, locate, prepare, survey, sync_folder, write};
use crate::config::{DataConfig, SourceSpec, TRAIN, Validation, WeightedSource};
use crate::error::DataError;
use crate::prepare::{key, sample};
use crate::progress::Progress;
use crate::token_file::TokenFile;
use crate::tokenizer::Tokenizer;

/// Everything that a configuration trains on.
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
    /// What it is called in reports.
    pub name: String,
    /// Its weight as given; 1 for a source that is alone.
    pub weight: f64,
    /// Its folder.
    pub prepared: Prepared,
}

/// Text to validate on.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// The source it was held out from, or `validation` for a text of its own.
    pub name: String,
    /// The weight of its loss in the total.
    pub weight: f64,
    /// The tokens.
    pub tokens: TokenFile,
}

impl Corpus {
    /// blake3 of the tokenizer and of all token files: equal for corpora of equal content, wherever
    /// they lie. Weights do not count.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(blake3::hash(self.tokenizer.json()).as_bytes());
        for PreparedSource { prepared, .. } in &self.sources {
            hash.update(&prepared.train.content_hash());
            hash.update(&prepared.validation.content_hash());
        }
        *hash.finalize().as_bytes()
    }

    /// The training tokens and weights of all sources, for [`MixedBatches`](crate::MixedBatches).
    pub fn train(&self) -> Vec<(TokenFile, f64)> {
        let sources = self.sources.iter();
        sources
            .map(|source| (source.prepared.train.clone(), source.weight))
            .collect()
    }

    /// The beginnings of the validation texts, of `tokens` tokens each or all there are.
    ///
    /// # Errors
    /// [`DataError`] if tokens cannot be read or decoded.
    pub fn held_out_text(&self, tokens: u64) -> Result<String, DataError> {
        let beginning = |text: HeldOut| {
            let tokens = text.tokens.read(0..tokens.min(text.tokens.len()))?;
            self.tokenizer.decode(&tokens)
        };
        self.held_out().into_iter().map(beginning).collect()
    }

    /// The validation tokens of each source, or the one text that all share.
    pub fn held_out(&self) -> Vec<HeldOut> {
        let of = |source: &PreparedSource| HeldOut {
            name: source.name.clone(),
            weight: source.weight,
            tokens: source.prepared.validation.clone(),
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

/// Prepares every source of a configuration, or finds them prepared already.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_corpus(config: &DataConfig, progress: &dyn Progress) -> Result<Corpus, DataError> {
    config.check()?;
    let SourceSpec::Mixture(members) = &config.source else {
        let prepared = prepare(config, progress)?;
        return Ok(Corpus {
            tokenizer: prepared.tokenizer.clone(),
            sources: vec![PreparedSource {
                name: config.source.name(),
                weight: 1.0,
                prepared,
            }],
            shared_validation: false,
        });
    };
    let alone = |member: &WeightedSource| DataConfig {
        source: SourceSpec::One(member.path.clone()),
        ..config.clone()
    };
    let tokenizer = match config.tokenizer.as_str() {
        TRAIN => {
            let members: Vec<_> = members.iter().map(|m| (alone(m), m.weight)).collect();
            let path = train_tokenizer(config, &members, progress)?;
            path.display().to_string()
        }
        path => path.to_owned(),
    };
    let sources = members
        .iter()
        .map(|member| {
            let config = DataConfig {
                tokenizer: tokenizer.clone(),
                ..alone(member)
            };
            Ok(PreparedSource {
                name: member.label(),
                weight: member.weight,
                prepared: prepare(&config, progress)?,
            })
        })
        .collect::<Result<Vec<_>, DataError>>()?;
    Ok(Corpus {
        tokenizer: sources[0].prepared.tokenizer.clone(),
        sources,
        shared_validation: matches!(config.validation, Validation::Path(_)),
    })
}

/// The file of a tokenizer trained on all members, which may be there already.
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
    // Its own bytes say nothing about damage: the hash beside it does.
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
        let (scan, plan, _) = survey(member, locate(member)?, progress)?;
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
    let _ = fs::remove_file(&record); // or a stale one would judge a new file
    write(&path, tokenizer.json())?;
    let hash = blake3::hash(tokenizer.json()).to_hex();
    write(&record, format!("{hash}\n").as_bytes())?;
    sync_folder(&directory)?;
    sync_folder(&config.cache)?;
    Ok(path)
}
