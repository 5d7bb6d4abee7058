//! What ranks tell each other before the first step: they can only train together if all of it is equal.

use serde::{Deserialize, Serialize};

use super::Ranks;
use crate::checkpoint::Identity;
use crate::config::differences;
use crate::{Difference, RunConfig, TrainError};

/// What a rank is about to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The version of the program, and a hash of its file.
    program: String,
    /// The configuration as TOML.
    config: String,
}

impl Told {
    /// Checks that every rank runs the same program with the same configuration.
    ///
    /// # Errors
    ///
    /// [`TrainError::RanksDiffer`] on every rank.
    pub(crate) fn agree(config: &RunConfig, ranks: &Ranks) -> Result<(), TrainError> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let own = Self {
            program: program(),
            config: config.to_toml(),
        };
        let all = ranks.gather(&own)?;
        compare(&all, |first, other| {
            let mut found = Vec::new();
            if first.program != other.program {
                found.push(Difference {
                    key: "the program".into(),
                    before: first.program.clone(),
                    now: other.program.clone(),
                });
            }
            let parsed = |told: &Self| toml::from_str::<RunConfig>(&told.config);
            if let (Ok(first), Ok(other)) = (parsed(first), parsed(other)) {
                found.extend(differences(&first, &other).all());
            }
            found
        })
    }
}

/// Checks that every rank reads the same corpus, for the same model, and stands at the same step.
///
/// # Errors
///
/// [`TrainError::RanksDiffer`] on every rank.
pub(crate) fn agree_on_data(
    identity: &Identity,
    step: u64,
    ranks: &Ranks,
) -> Result<(), TrainError> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let all = ranks.gather(&(identity.clone(), step))?;
    compare(&all, |(first, step), (other, now)| {
        let mut found = first.differences(other);
        if step != now {
            found.push(Difference {
                key: "the checkpoint's step".into(),
                before: step.to_string(),
                now: now.to_string(),
            });
        }
        found
    })
}

fn compare<T>(
    all: &[T],
    differences: impl Fn(&T, &T) -> Vec<Difference>,
) -> Result<(), TrainError> {
    let Some((first, others)) = all.split_first() else {
        return Ok(());
    };
    for (other, rank) in others.iter().zip(1..) {
        let differences = differences(first, other);
        if !differences.is_empty() {
            return Err(TrainError::RanksDiffer { rank, differences });
        }
    }
    Ok(())
}

/// Version and hash of the running program.
fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let bytes = std::env::current_exe().and_then(std::fs::read);
    let hash = bytes.map(|bytes| blake3::hash(&bytes).to_hex().to_string());
    match hash {
        Ok(hash) => format!("iiet {version}, blake3 {}", &hash[..16]),
        // A deleted or unreadable file: the version must do.
        Err(_) => format!("iiet {version}"),
    }
}
