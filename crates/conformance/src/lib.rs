//! Checks that a device computes the same results as PyTorch.
//!
//! Each of [`CHECKS`] takes a device. It compares with numbers from outside this project (PyTorch's, kept in
//! the crate), with a formula evaluated in f64, or for bitwise equality, and reports the deviation and its
//! tolerance.
//!
//! ```no_run
//! # // Needs a backend, which an application chooses by a feature of `burn`.
//! use burn::tensor::Device;
//!
//! for check in iiet_conformance::CHECKS {
//!     for finding in check.run(&Device::default())? {
//!         println!("{}: {finding}", check.name);
//!     }
//! }
//! # Ok::<(), iiet_conformance::ConformanceError>(())
//! ```

mod decoding;
mod distillation;
mod encoder_decoder;
mod error;
mod finding;
mod golden;
mod half_precision;
mod optimizer;
mod packed;
mod parity;
mod storage;
mod training;

use std::panic::{self, AssertUnwindSafe};

use burn::tensor::Device;
use iiet_model::{ModelKind, model_kind};

pub use error::ConformanceError;
pub use finding::Finding;
pub use golden::Case;
pub use training::tiny_model;

/// A check that every device must pass.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// A short description.
    pub name: &'static str,
    run: fn(&Device) -> Result<Vec<Finding>, ConformanceError>,
}

/// All checks, the fastest first.
pub const CHECKS: [Check; 9] = [
    Check {
        name: "parity with PyTorch",
        run: |device| over_cases(Case::all(), device, parity::check),
    },
    Check {
        name: "encoder-decoders",
        run: |device| over_cases(Case::encoder_decoders(), device, encoder_decoder::check),
    },
    Check {
        name: "distillation",
        run: distillation::check,
    },
    Check {
        name: "8 and 4 bits",
        run: packed::check,
    },
    Check {
        name: "cached decoding",
        run: |device| over_cases(Case::all(), device, decoding::check),
    },
    Check {
        name: "half precision",
        run: |device| over_cases(Case::all(), device, half_precision::check),
    },
    Check {
        name: "optimiser steps",
        run: |device| over_cases(Case::all(), device, optimizer::check),
    },
    Check {
        name: "save and load",
        run: |device| over_cases(Case::all(), device, storage::check),
    },
    Check {
        name: "training tiny",
        run: training::check,
    },
];

impl Check {
    /// Runs the check on a device.
    ///
    /// # Errors
    ///
    /// [`ConformanceError`] if the device fails to compute a result, or if Burn panics; the other checks can
    /// still run.
    pub fn run(&self, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
        panic::catch_unwind(AssertUnwindSafe(|| (self.run)(device)))
            .unwrap_or_else(|payload| Err(ConformanceError::panicked(payload.as_ref())))
    }
}

fn over_cases(
    cases: impl IntoIterator<Item = Case>,
    device: &Device,
    check: fn(&Case, &Device) -> Result<Vec<Finding>, ConformanceError>,
) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = Vec::new();
    for case in cases {
        findings.extend(check(&case, device)?);
    }
    Ok(findings)
}

impl Case {
    /// Compares logits, loss and every gradient with PyTorch's.
    ///
    /// # Errors
    ///
    /// [`ConformanceError`] if the case cannot be read or has other parameter names.
    pub fn compare(&self, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
        match model_kind(self.directory()?.path())? {
            ModelKind::EncoderDecoder => encoder_decoder::parity(self, device),
            _ => parity::check(self, device),
        }
    }
}

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
