//! Memory estimates, checked before any memory is taken.

use std::fmt;
use std::path::Path;

use burn::tensor::Device;
use iiet_blocks::{BlockConfig, KeyValueCache};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::checkpoint::{quantisation, weight_bytes};
use crate::{Cost, LanguageModel, ModelConfig, ModelError, Precision};

/// The part of an estimate that is the weights.
pub(crate) const WEIGHTS: &str = "weights";

/// Bytes that this process can still allocate, within the limits of the system, a container and
/// `ulimit -v`.
pub fn available_memory() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(memory);
    let free = system.available_memory();
    // Not `free_memory`: the usage of a group includes the page cache, which the kernel gives up for allocations.
    let limits = system.cgroup_limits();
    let free = limits.map_or(free, |limits| {
        free.min(limits.total_memory.saturating_sub(limits.rss))
    });
    left_of_address_space().map_or(free, |left| free.min(left))
}

/// The remainder of `ulimit -v`, if set.
#[cfg(target_os = "linux")]
fn left_of_address_space() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit to a valid address and returns whether it succeeded.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    if !known || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.rlim_cur.saturating_sub(kibibytes << 10))
}

#[cfg(not(target_os = "linux"))]
fn left_of_address_space() -> Option<u64> {
    None
}

/// An estimate of the memory that an operation takes, by its parts.
///
/// ```
/// use iiet_model::MemoryEstimate;
///
/// let estimate = MemoryEstimate::of("decoding 4 texts")
///     .with("weights", 1 << 20)
///     .with("keys and values", 1 << 20);
/// assert_eq!(estimate.total(), 2 << 20);
/// estimate.check("lower --max-tokens")?;
/// # Ok::<(), iiet_model::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEstimate {
    work: String,
    parts: Vec<(&'static str, u64)>,
}

impl MemoryEstimate {
    /// An estimate for an operation described as in "decoding 4 texts".
    pub fn of(work: impl Into<String>) -> Self {
        let (work, parts) = (work.into(), Vec::new());
        Self { work, parts }
    }

    /// Adds a part.
    pub fn with(mut self, part: &'static str, bytes: u64) -> Self {
        self.parts.push((part, bytes));
        self
    }

    /// With the size of a directory's weights, if these are packed: they stay so in memory.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if the directory cannot be read.
    pub fn stored_in(mut self, dir: &Path) -> Result<Self, ModelError> {
        if quantisation(dir)?.is_some() {
            let bytes = weight_bytes(dir)?;
            let weights = self.parts.iter_mut().filter(|(part, _)| *part == WEIGHTS);
            weights.for_each(|(_, size)| *size = bytes);
        }
        Ok(self)
    }

    /// The sum in bytes.
    pub fn total(&self) -> u64 {
        let bytes = self.parts.iter().map(|(_, bytes)| *bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Compares with the available memory; `remedy` is what the user can change, as in "lower
    /// --max-tokens".
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn check(&self, remedy: &'static str) -> Result<(), ModelError> {
        self.compare(available_memory(), remedy)
    }

    fn compare(&self, available: u64, remedy: &'static str) -> Result<(), ModelError> {
        match self.total() <= available {
            true => Ok(()),
            false => Err(ModelError::Memory {
                estimate: self.clone(),
                available,
                remedy,
            }),
        }
    }
}

impl fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} takes about {}", self.work, Bytes(self.total()))?;
        let parts = self.parts.iter().enumerate();
        parts.into_iter().try_for_each(|(number, (part, bytes))| {
            let before = if number == 0 { " (" } else { ", " };
            write!(f, "{before}{part} {}", Bytes(*bytes))
        })?;
        f.write_str(if self.parts.is_empty() { "" } else { ")" })
    }
}

/// What inference keeps in memory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inference {
    /// The dtype of the matrices.
    pub precision: Precision,
    /// Tokens that pass through the layers together.
    pub tokens: usize,
    /// Number of these tokens whose logits are computed together.
    pub logits: usize,
    /// Tokens in the KV cache, over all texts.
    pub cached: usize,
    /// The dtype of the KV cache.
    pub cache: Precision,
}

impl Inference {
    /// An estimate of the required memory; `work` describes the operation, as in "decoding 4
    /// texts".
    ///
    /// Weights, keys and values are exact; hidden states include the states of a history, the
    /// inputs of products and the feed-forward layer's values.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`].
    pub fn memory(
        &self,
        work: impl Into<String>,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<MemoryEstimate, ModelError> {
        // Its weights are not allocated until they are used.
        let empty: LanguageModel = LanguageModel::empty(config, device)?;
        let cost = Cost::of(&empty);
        let [tokens, logits, cached] =
            [self.tokens, self.logits, self.cached].map(|count| count as u64);
        let [f32, stored, cache] =
            [Precision::F32, self.precision, self.cache].map(|type_| type_.bytes() as u64);
        let block = config.block.cost(config.d_model, config.seq_len);
        let history = (config.n_layers + 1) * config.d_model;
        let width = block.activations_per_token + history as u64;
        let mut estimate = MemoryEstimate::of(work)
            .with(WEIGHTS, stored * cost.parameters)
            .with("hidden states", tokens.saturating_mul(f32 * width))
            // On the device, read back to the host, and as they are used.
            .with(
                "logits",
                logits.saturating_mul(3 * f32 * config.vocab_size as u64),
            );
        if cached > 0 {
            let keys_and_values = cached.saturating_mul(cost.cache_bytes_per_token) / f32 * cache;
            let caches = cost.total_evaluations() * size_of::<KeyValueCache>();
            let bytes = keys_and_values.saturating_add(caches as u64);
            estimate = estimate.with("keys and values", bytes);
        }
        Ok(estimate)
    }
}

/// A size in bytes, formatted.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 as f64 / (1u64 << 20) as f64;
        match mebibytes < 1024.0 {
            true => write!(f, "{mebibytes:.1} MiB"),
            false => write!(f, "{:.1} GiB", mebibytes / 1024.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_positive() {
        assert!(available_memory() > 1 << 20);
    }

    #[test]
    fn the_message_contains_the_numbers_and_the_remedy() {
        let gib = 1u64 << 30;
        let estimate = MemoryEstimate::of("decoding 4 texts")
            .with("weights", 3 * gib)
            .with("keys and values", gib / 2);
        assert!(estimate.compare(4 * gib, "lower --max-tokens").is_ok());
        let error = estimate.compare(3 * gib, "lower --max-tokens").unwrap_err();
        assert_eq!(
            error.to_string(),
            "decoding 4 texts takes about 3.5 GiB (weights 3.0 GiB, keys and values 512.0 MiB); \
             3.0 GiB are free; lower --max-tokens"
        );
    }

    #[test]
    fn an_overflowing_estimate_is_an_error() {
        let estimate = MemoryEstimate::of("x")
            .with("a", u64::MAX)
            .with("b", u64::MAX);
        assert!(estimate.compare(u64::MAX - 1, "").is_err());
    }
}
