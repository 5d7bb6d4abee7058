//! What commands that ask tasks share: where the items of the heldout tasks are from, and what is being
//! asked.

use std::io::IsTerminal;
use std::path::PathBuf;

use iiet_eval::Settings;

use crate::print::errln;

/// What is measured next, on standard error where no terminal shows a bar.
pub(crate) fn announce(what: &str) {
    if !std::io::stderr().is_terminal() {
        errln!("{what}");
    }
}

#[derive(clap::Args)]
pub(crate) struct HeldOutArguments {
    /// A folder that `iiet data heldout` wrote: the items of the heldout tasks are read from it. Without
    /// it they are made from the locked dependencies of the Cargo workspace around the working directory.
    #[arg(long, value_name = "DIR")]
    heldout: Option<PathBuf>,
    /// Where items of the heldout tasks that are made are kept.
    #[arg(long, value_name = "DIR", default_value = "data")]
    cache: PathBuf,
}

impl HeldOutArguments {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            cache: self.cache.clone(),
            held_out: self.heldout.clone(),
            ..Settings::default()
        }
    }
}
