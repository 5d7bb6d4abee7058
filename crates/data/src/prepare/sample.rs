//! The text for training a tokenizer: an evenly spread sample of the training part.

use super::divide::{Part, Plan, read_divided};
use super::scan::Scan;
use crate::config::DataConfig;
use crate::error::DataError;
use crate::progress::Progress;
use crate::source::{Reading, Split, parts};

/// Bytes of the sample. The merges of a small vocabulary hardly change beyond a few megabytes, and
/// the trainer's 32-bit pair counts cannot overflow below this.
pub(super) const SAMPLE_BYTES: u64 = 16 << 20;
/// Pieces are sampled in parts of at most this size, so that the sample is spread within them too.
/// It also limits the length of words, in which the trainer's time is quadratic.
const PART_BYTES: usize = 16 * 1024;

/// Texts of about `budget` bytes in total, spread evenly over the training part.
pub(super) fn sample(
    scan: &Scan,
    plan: &Plan,
    config: &DataConfig,
    budget: u64,
    progress: &dyn Progress,
) -> Result<Vec<String>, DataError> {
    progress.stage("sampling text for the tokenizer", Some(scan.text_bytes));
    let (mut seen, mut taken) = (0_u64, 0_u64);
    let mut texts = Vec::new();
    read_divided(scan, plan, &Reading::of(config), &mut |part| {
        let text = match part {
            Part::Text(Split::Train, text) => text,
            Part::Text(Split::Validation, text) => {
                progress.advance(text.len() as u64);
                return Ok(());
            }
            Part::EndPrompt(_) | Part::End(_) => return Ok(()),
        };
        for part in parts(text, PART_BYTES) {
            // Takes a part whenever the sample is below its share of the text so far.
            seen += part.len() as u64;
            let share = u128::from(seen) * u128::from(budget);
            if u128::from(taken) * u128::from(scan.text_bytes.max(budget)) < share && taken < budget
            {
                taken += part.len() as u64;
                texts.push(part.to_owned());
            }
        }
        progress.advance(text.len() as u64);
        Ok(())
    })?;
    progress.done(&format!(
        "{:.1} MB of it, evenly spread, to train the tokenizer on",
        taken as f64 / 1e6
    ));
    Ok(texts)
}
