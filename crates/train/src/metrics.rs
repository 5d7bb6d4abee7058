//! `metrics.jsonl`: one object for each logged step.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// What is logged of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Optimiser steps taken, this one included.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean loss of this step's batch before its update, in nats per token.
    pub loss: f64,
    /// Its terms by name, in nats per token and without their weights, where there are several:
    /// `cross_entropy`, `divergence` from a teacher, `smooth_l1` between layers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
    /// The cross-entropy in bits per byte of text.
    pub bits_per_byte: f64,
    /// The update's learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens trained on per second since the last record, validation and samples left out.
    pub tokens_per_second: f64,
    /// Model FLOPs utilisation: the floating-point operations of a forward and a backward pass
    /// times `tokens_per_second`, as a share of what large matrix products reached on the run's
    /// devices, one after the other and added up, when it was started. Recomputed layers count once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_utilisation: Option<f64>,
    /// Evaluations of blocks for one token, all layers together.
    pub evaluations: usize,
    /// Mean loss on the validation text after the update, in nats per token, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// The same in bits per byte of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_bits_per_byte: Option<f64>,
    /// The validation loss of each source, in nats per token, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_by_source: BTreeMap<String, f64>,
}

/// The file and what is in it.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    pub(crate) records: Vec<Record>,
}

impl MetricsLog {
    /// Opens the log of a run that stands after `step`: later records belong to updates that were
    /// lost with their checkpoint, and are dropped.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let (records, text) = match File::open(path) {
            Ok(file) => read_up_to(file, step).map_err(TrainError::io(path))?,
            Err(_) => Default::default(),
        };
        let partial = path.with_extension("jsonl.partial");
        fs::write(&partial, text).map_err(TrainError::io(&partial))?;
        fs::rename(&partial, path).map_err(TrainError::io(path))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(TrainError::io(path))?;
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            records,
        })
    }

    /// Appends a record in one write, so that a reader never sees half a line.
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

/// The records of steps up to `step`, and their lines as they stand: written again, a number could
/// lose its last bit. A line cut short by a crash ends the log.
fn read_up_to(file: File, step: u64) -> std::io::Result<(Vec<Record>, String)> {
    let (mut records, mut text) = (Vec::new(), String::new());
    for line in BufReader::new(file).lines() {
        let line = line?;
        match serde_json::from_str::<Record>(&line) {
            Ok(record) if record.step <= step => records.push(record),
            _ => break,
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok((records, text))
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
            bits_per_byte: 0.5,
            lr: 1e-3,
            grad_norm: 1.0,
            tokens_per_second: 100.0,
            flops_utilisation: Some(0.5),
            evaluations: 4,
            validation_loss: (step == 2).then_some(2.5),
            validation_bits_per_byte: None,
            validation_by_source: BTreeMap::new(),
        }
    }

    #[test]
    fn a_reopened_log_forgets_later_steps_and_broken_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        (1..=4).for_each(|step| log.append(record(step)).unwrap());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\": 5, \"tok").unwrap();

        let log = MetricsLog::open(&path, 3).unwrap();
        assert_eq!(log.records, [record(1), record(2), record(3)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\"validation_loss\":2.5"));
    }
}
