//! The same checks on any device: does it compute what PyTorch computes?
//!
//! [`CHECKS`] take a device. Each compares with numbers that were not produced here (PyTorch's, kept in
//! the crate), with a formula evaluated in f64, or with what must be equal to the last bit, and says
//! by how much the device deviates and how much is allowed.
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
mod error;
mod finding;
mod golden;
mod half_precision;
mod optimizer;
mod parity;
mod storage;
mod training;

use std::panic::{self, AssertUnwindSafe};

use burn::tensor::Device;

pub use error::ConformanceError;
pub use finding::Finding;
pub use golden::Case;
pub use training::tiny_model;

/// Something that every device must get right.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// A few words for a table.
    pub name: &'static str,
    run: fn(&Device) -> Result<Vec<Finding>, ConformanceError>,
}

/// All checks, the quick ones first.
pub const CHECKS: [Check; 7] = [
    Check {
        name: "parity with PyTorch",
        run: |device| over_cases(device, parity::check),
    },
    Check {
        name: "distillation",
        run: distillation::check,
    },
    Check {
        name: "cached decoding",
        run: |device| over_cases(device, decoding::check),
    },
    Check {
        name: "half precision",
        run: |device| over_cases(device, half_precision::check),
    },
    Check {
        name: "optimiser steps",
        run: |device| over_cases(device, optimizer::check),
    },
    Check {
        name: "save and load",
        run: |device| over_cases(device, storage::check),
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
    /// [`ConformanceError`] where the device does not get as far as a number, also by a panic of
    /// Burn's: the other checks can go on.
    pub fn run(&self, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
        panic::catch_unwind(AssertUnwindSafe(|| (self.run)(device)))
            .unwrap_or_else(|payload| Err(ConformanceError::panicked(payload.as_ref())))
    }
}

fn over_cases(
    device: &Device,
    check: fn(&Case, &Device) -> Result<Vec<Finding>, ConformanceError>,
) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = Vec::new();
    for case in Case::all() {
        findings.extend(check(&case, device)?);
    }
    Ok(findings)
}

impl Case {
    /// Compares logits, loss and every gradient with PyTorch's.
    ///
    /// # Errors
    ///
    /// [`ConformanceError`] if the case cannot be read or its parameters have other names.
    pub fn compare(&self, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
        parity::check(self, device)
    }
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
