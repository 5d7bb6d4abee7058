//! Errors of block configurations.

/// An invalid block configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// `config.json` does not match the block's keys; the message has line and column.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A feature that this block does not support.
    #[error("{key} is {found}; {allowed}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// A size or a number out of range.
    #[error("{key} is {found}; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
}
