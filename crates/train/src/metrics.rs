//! `metrics.jsonl`: one object for each logged step.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iiet_files::{append_regular, read_regular, write_file};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The record of a logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of optimiser steps, including this one.
    pub step: u64,
    /// Number of tokens trained on so far.
    pub tokens: u64,
    /// Mean loss of this step's batch before its update, in nats per token.
    pub loss: f64,
    /// The loss's terms by name, in nats per token and without their weights, if there are several:
    /// `cross_entropy`, `divergence` from a teacher, `smooth_l1` between layers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
    /// The share of the step's targets that were the most likely token, before the update; on tasks
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The cross-entropy in bits per byte of text; none for a batch whose targets are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// The update's learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens trained on per second since the last record, excluding validation and samples.
    pub tokens_per_second: f64,
    /// Model FLOPs utilisation: the floating-point operations of a forward and a backward pass times
    /// `tokens_per_second`, relative to the speed of large matrix products, measured on each of the run's
    /// devices at its start and summed. Recomputed layers count once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_utilisation: Option<f64>,
    /// Evaluations of blocks per token, summed over layers.
    pub evaluations: usize,
    /// Seconds of this step in which the first of several processes waited for the others and for what they send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_seconds: Option<f64>,
    /// Mean loss on the validation text after the update, in nats per token, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// The share of the validation targets that were the most likely token; on tasks alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// The validation loss in bits per byte of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_bits_per_byte: Option<f64>,
    /// The validation loss of each source, in nats per token, if there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_by_source: BTreeMap<String, f64>,
}

/// The file and its records.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    pub(crate) records: Vec<Record>,
}

/// A log with lines that are not records, which was renamed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeptAside {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl MetricsLog {
    /// Opens the log of a run after `step`: later records belong to updates that were lost with their
    /// checkpoint, and are dropped.
    ///
    /// Nothing else is dropped: a log with invalid lines is renamed, and its valid records are copied to a
    /// new file.
    pub(crate) fn open(path: &Path, step: u64) -> Result<(Self, Option<KeptAside>), TrainError> {
        let (found, kept) = match read_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Found::default(), None),
            Err(error) => (Found::default(), Some(keep_aside(path, error.to_string())?)),
            Ok(bytes) => {
                let found = Found::in_log(&bytes, step);
                let kept = match &found.not_understood {
                    Some(reason) => Some(keep_aside(path, reason.clone())?),
                    None => None,
                };
                if kept.is_some() || found.text.as_bytes() != bytes {
                    write_file(path, |file| file.write_all(found.text.as_bytes()))
                        .map_err(TrainError::io(path))?;
                }
                (found, kept)
            }
        };
        let log = Self {
            path: path.to_owned(),
            file: append_regular(path).map_err(TrainError::io(path))?,
            records: found.records,
        };
        Ok((log, kept))
    }

    /// Appends a record in one write, so that a reader never sees part of a line.
    pub(crate) fn append(&mut self, record: Record) -> Result<(), TrainError> {
        self.file
            .write_all(line(&record).as_bytes())
            .map_err(TrainError::io(&self.path))?;
        self.records.push(record);
        Ok(())
    }
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("invariant: plain data serialises") + "\n"
}

/// The content of a log.
#[derive(Debug, Default)]
struct Found {
    /// Records up to the given step.
    records: Vec<Record>,
    /// Their lines, unchanged: parsing and formatting could change a number's last bit.
    text: String,
    /// The first line that is not a record, and why.
    not_understood: Option<String>,
}

impl Found {
    /// The records of steps up to `step`. Text after the last newline is a record truncated by a crash; every
    /// other line should be a record.
    fn in_log(bytes: &[u8], step: u64) -> Self {
        let mut found = Self::default();
        for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let whole = line.strip_suffix(b"\n");
            let text =
                std::str::from_utf8(whole.unwrap_or(line)).map_err(|error| error.to_string());
            let record = text.and_then(|text| {
                let record = serde_json::from_str::<Record>(text);
                record
                    .map(|record| (record, text))
                    .map_err(|error| error.to_string())
            });
            match record {
                Ok((record, text)) if record.step <= step => {
                    found.records.push(record);
                    found.text.push_str(text);
                    found.text.push('\n');
                }
                Err(reason) if whole.is_some() && found.not_understood.is_none() => {
                    found.not_understood = Some(format!("line {}: {reason}", at + 1));
                }
                _ => {}
            }
        }
        found
    }
}

/// Renames a log to the first free `NAME.unread-1`, `NAME.unread-2`, ..
fn keep_aside(path: &Path, reason: String) -> Result<KeptAside, TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = (1u64..)
        .map(|number| path.with_file_name(format!("{name}.unread-{number}")))
        .find(|aside| aside.symlink_metadata().is_err())
        .expect("invariant: there are infinitely many names");
    fs::rename(path, &aside).map_err(TrainError::io(path))?;
    Ok(KeptAside {
        path: aside,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record {
            step,
            tokens: 10 * step,
            loss: 1.0 / step as f64,
            terms: BTreeMap::new(),
            accuracy: None,
            bits_per_byte: Some(0.5),
            lr: 1e-3,
            grad_norm: 1.0,
            tokens_per_second: 100.0,
            flops_utilisation: Some(0.5),
            evaluations: 4,
            exchange_seconds: None,
            validation_loss: (step == 2).then_some(2.5),
            validation_accuracy: None,
            validation_bits_per_byte: None,
            validation_by_source: BTreeMap::new(),
        }
    }

    fn written(dir: &Path, records: u64) -> PathBuf {
        let path = dir.join("metrics.jsonl");
        let (mut log, kept) = MetricsLog::open(&path, 0).unwrap();
        assert_eq!(kept, None);
        (1..=records).for_each(|step| log.append(record(step)).unwrap());
        path
    }

    #[test]
    fn a_reopened_log_drops_later_steps_and_a_truncated_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 4);
        let mut file = append_regular(&path).unwrap();
        file.write_all(b"{\"step\": 5, \"tok").unwrap();

        let (log, kept) = MetricsLog::open(&path, 3).unwrap();
        assert_eq!(kept, None);
        assert_eq!(log.records, [record(1), record(2), record(3)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\"validation_loss\":2.5"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_line_affects_no_other_and_the_old_file_is_kept() {
        for damage in [b"\xff".as_slice(), b"x", b"\n"] {
            let dir = tempfile::tempdir().unwrap();
            let path = written(dir.path(), 30);
            let mut bytes = fs::read(&path).unwrap();
            let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            bytes[second..second + 1].copy_from_slice(damage);
            fs::write(&path, &bytes).unwrap();

            let (mut log, kept) = MetricsLog::open(&path, 30).unwrap();
            let kept = kept.unwrap();
            assert_eq!(kept.path, dir.path().join("metrics.jsonl.unread-1"));
            assert!(kept.reason.starts_with("line 2: "), "{}", kept.reason);
            assert_eq!(fs::read(&kept.path).unwrap(), bytes);
            assert_eq!(log.records.len(), 29);
            log.append(record(31)).unwrap();
            let (log, kept) = MetricsLog::open(&path, 31).unwrap();
            assert_eq!((log.records.len(), kept), (30, None));
        }
    }

    #[test]
    fn non_finite_numbers_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 1);
        // As written by earlier versions.
        let mut file = append_regular(&path).unwrap();
        let of_old = line(&record(2)).replace("\"bits_per_byte\":0.5", "\"bits_per_byte\":null");
        file.write_all(of_old.as_bytes()).unwrap();
        let (log, kept) = MetricsLog::open(&path, 2).unwrap();
        assert_eq!(kept, None);
        assert_eq!(log.records[1].bits_per_byte, None);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_in_place_of_the_log_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::create_dir(&path).unwrap();
        let (log, kept) = MetricsLog::open(&path, 2).unwrap();
        assert!(log.records.is_empty() && path.is_file());
        let reason = kept.unwrap().reason;
        assert_eq!(reason, "is a directory; allowed: a regular file");
    }
}
