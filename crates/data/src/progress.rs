//! Progress reports of a preparation.

/// Receives the progress of a preparation; `()` ignores it.
///
/// Calls come from the thread that called [`prepare`](crate::prepare), in the order
/// `stage, advance.., done, stage, ..`.
pub trait Progress: Sync {
    /// A stage starts, with its length in bytes of text if known.
    fn stage(&self, name: &str, total_bytes: Option<u64>);
    /// `bytes` more of the stage's text have been processed.
    fn advance(&self, bytes: u64);
    /// The stage is complete; `summary` is one line to display.
    fn done(&self, summary: &str);
    /// One line to display that does not end a stage: that the preparation waits for another
    /// process, or why a corpus is prepared again. Calls [`done`](Self::done) by default.
    fn note(&self, line: &str) {
        self.done(line);
    }
}

impl Progress for () {
    fn stage(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn done(&self, _summary: &str) {}
    fn note(&self, _line: &str) {}
}
