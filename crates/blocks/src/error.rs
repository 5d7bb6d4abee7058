//! Blocks that cannot be built.

/// A configuration that a block cannot have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// `config.json` is not what the block's part of it should be; the message has line and column.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A feature of other blocks.
    #[error("{key} is {found}; {allowed}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// A size or a number that does not fit.
    #[error("{key} is {found}; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
}
