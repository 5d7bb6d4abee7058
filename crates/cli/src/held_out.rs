//! Where the items of the heldout tasks are from.

use std::path::PathBuf;

use iiet_eval::Settings;

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
