//! A bar on the terminal; nothing where there is none.

use std::borrow::Cow;

use indicatif::{ProgressBar, ProgressStyle};

use crate::scorer::Progress;

/// Shows the tokens passed through the model for one task.
pub struct TokenBar(ProgressBar);

impl TokenBar {
    /// A bar for the task of this name.
    pub fn new(task: impl Into<Cow<'static, str>>) -> Self {
        let style = "{prefix:>16} {wide_bar} {human_pos}/{human_len} tokens {per_sec} {eta}";
        let style = ProgressStyle::with_template(style).expect("invariant: a valid template");
        Self(ProgressBar::new(0).with_style(style).with_prefix(task))
    }
}

impl Progress for TokenBar {
    fn start(&self, tokens: u64) {
        self.0.set_length(tokens);
        self.0.reset();
    }

    fn advance(&self, tokens: u64) {
        self.0.inc(tokens);
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
