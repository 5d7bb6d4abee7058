//! How a long preparation tells its caller where it stands.

/// Receives the progress of a preparation; `()` ignores it.
///
/// Calls come from the thread that called [`prepare`](crate::prepare), in the order
/// `stage, advance.., done, stage, ..`.
pub trait Progress: Sync {
    /// A stage begins, with its length in bytes of text where that is known.
    fn stage(&self, name: &str, total_bytes: Option<u64>);
    /// `bytes` more of the stage's text are done.
    fn advance(&self, bytes: u64);
    /// The stage is over; `summary` is one line worth printing.
    fn done(&self, summary: &str);
    /// One line worth printing that ends no stage: for whom the preparation waits, or why something
    /// is prepared again. As [`done`](Self::done) unless given.
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
