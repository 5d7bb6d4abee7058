//! `cargo xtask bench [kernels|step|decoding|products|peers|growth] [-- ARGS]`: builds and runs the programs of
//! `benches`, with the profile and features of the other binaries, so that Burn is not compiled again.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::Invocation;

/// Benchmarks with criterion.
const CRITERION: [&str; 3] = ["kernels", "step", "decoding"];
/// Stand-alone programs, by the names of their binaries.
const PROGRAMS: [(&str, &str); 3] = [
    ("products", "products"),
    ("peers", "side_by_side"),
    ("growth", "growth"),
];

/// Runs the named program, or the benchmarks with criterion.
pub(crate) fn run(invocation: &Invocation, workspace: &Path) -> Result<ExitCode, String> {
    if invocation.backend != "flex" {
        return Err("bench measures the flex backend".into());
    }
    let words = &invocation.arguments[1..];
    let Some((name, rest)) = words.split_first() else {
        return criterion(workspace, &CRITERION, &[]);
    };
    let name = name.to_string_lossy();
    let rest = rest.strip_prefix(&["--".into()]).unwrap_or(rest);
    if CRITERION.contains(&&*name) {
        return criterion(workspace, &[&name], rest);
    }
    let Some((_, binary)) = PROGRAMS.iter().find(|(known, _)| *known == name) else {
        let known = CRITERION
            .into_iter()
            .chain(PROGRAMS.map(|(known, _)| known));
        let known: Vec<&str> = known.collect();
        return Err(format!("bench {name}; allowed: {}", known.join(", ")));
    };
    let binary = crate::build(invocation, workspace, binary)?;
    // As cargo does for the programs that it runs.
    let folder = workspace.join("benches");
    crate::run(
        Command::new(binary)
            .args(rest)
            .env("CARGO_MANIFEST_DIR", folder),
    )
}

fn criterion(workspace: &Path, names: &[&str], rest: &[OsString]) -> Result<ExitCode, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["bench", "--profile", "dev", "--workspace"])
        .args(["--features", "iiet-cli/flex"]);
    for name in names {
        cargo.args(["--bench", name]);
    }
    crate::run(cargo.arg("--").args(rest))
}
