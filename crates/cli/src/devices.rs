//! `iiet devices`

use comfy_table::{Table, presets};

use crate::backend::{self, Backend};
use crate::print::out;

/// Lists the backends compiled in with their devices, and how to get the others.
pub(crate) fn run() -> anyhow::Result<()> {
    let (compiled_in, others): (Vec<Backend>, Vec<Backend>) = Backend::ALL
        .into_iter()
        .partition(|backend| backend.is_compiled_in());
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for backend in compiled_in {
        let devices = backend::described(backend);
        if devices.is_empty() {
            table.add_row([backend.name().to_owned(), backend.remedy()]);
        }
        for (name, about) in devices {
            let default = match name == backend::default_device() {
                true => " (default)",
                false => "",
            };
            table.add_row([name.to_string(), format!("{about}{default}")]);
        }
    }
    let mut text = format!("{table}\n");
    if !others.is_empty() {
        let others: Vec<&str> = others.into_iter().map(Backend::name).collect();
        text += &format!(
            "not compiled in: {}; `cargo xtask --backend NAME ..` builds with one\n",
            others.join(", ")
        );
    }
    out!("{text}")
}
