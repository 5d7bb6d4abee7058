//! `cargo xtask [--backend B] [--features F,..] COMMAND ARGS`: builds `iiet` with the backend's
//! feature and runs `iiet COMMAND ARGS`.
//!
//! `iiet` is built with the same profile as the tests and with the features of the whole workspace, so that a
//! checkout compiles Burn once for both.

mod bench;
#[cfg(unix)]
mod torture;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const BACKENDS: &[&str] = &["flex", "ndarray", "wgpu", "vulkan", "cuda"];

const HELP: &str = "\
cargo xtask [--backend BACKEND] [--features FEATURE,..] COMMAND ARGS

Builds iiet and runs `iiet COMMAND ARGS`; `cargo xtask help` lists the commands.

  --backend BACKEND       flex (default), ndarray, wgpu, vulkan or cuda, compiled in beside flex;
                          `devices` lists its devices, `conformance` checks their results
  --features FEATURE,..   further features of iiet, such as mpi

`cargo xtask bench [kernels|step|decoding|products|peers|growth]` runs benchmarks, on flex.
`cargo xtask train` alone trains configs/tiny.toml on the sources of this workspace's
dependencies: a few minutes on two CPU cores. `cargo xtask torture [--short]` kills and damages
training runs and compares them with an undisturbed one.";

/// The parsed command line.
#[derive(Debug, Clone, PartialEq)]
struct Invocation {
    backend: String,
    features: Vec<String>,
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let invocation = match parse(env::args_os().skip(1).collect()) {
        Ok(invocation) => invocation,
        Err(message) => {
            eprintln!("{message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if invocation.arguments.is_empty() {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match build_and_run(&invocation) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Result<Invocation, String> {
    let mut invocation = Invocation {
        backend: "flex".into(),
        features: Vec::new(),
        arguments: Vec::new(),
    };
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = |flag: &str| {
            let value = rest.next().and_then(|value| value.into_string().ok());
            value.ok_or(format!("{flag} needs a value"))
        };
        match argument.to_str() {
            Some("--backend") => invocation.backend = value("--backend")?,
            Some("--features") => {
                let list = value("--features")?;
                invocation
                    .features
                    .extend(list.split(',').map(str::to_owned));
            }
            Some("--help" | "-h") => {
                return Ok(Invocation {
                    arguments: Vec::new(),
                    ..invocation
                });
            }
            Some(flag) if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            _ => {
                // The first word that is not an option, and all that follows, is passed to iiet.
                invocation.arguments = [argument].into_iter().chain(rest).collect();
                break;
            }
        }
    }
    if !BACKENDS.contains(&invocation.backend.as_str()) {
        let (found, allowed) = (&invocation.backend, BACKENDS.join(", "));
        return Err(format!("--backend {found}; allowed: {allowed}"));
    }
    Ok(invocation)
}

fn build_and_run(invocation: &Invocation) -> Result<ExitCode, String> {
    let here = manifest_folder();
    let workspace = here.parent().ok_or("xtask is not in a workspace")?;
    if invocation.arguments[0] == "bench" {
        return bench::run(invocation, workspace);
    }
    let binary = build(&with_ranks(invocation), workspace, "iiet")?;
    if let Some((first, rest)) = invocation.arguments.split_first()
        && first == "torture"
    {
        return torment(rest, workspace, &binary);
    }
    let mut arguments = invocation.arguments.clone();
    if arguments == ["train"] {
        arguments.push("--config".into());
        arguments.push(workspace.join("configs/tiny.toml").into());
    }
    run(Command::new(binary).args(arguments))
}

/// This package's folder. Cargo says where it is when it runs a program: clones that share a target directory share
/// the program too, so that where it was compiled may be another clone.
fn manifest_folder() -> PathBuf {
    let folder = env::var_os("CARGO_MANIFEST_DIR");
    folder.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The invocation with MPI, if it tortures runs over several processes.
fn with_ranks(invocation: &Invocation) -> Invocation {
    let Invocation {
        backend,
        mut features,
        arguments,
    } = invocation.clone();
    if arguments[0] == "torture" && arguments.iter().any(|argument| argument == "--ranks") {
        features.push("mpi".into());
    }
    Invocation {
        backend,
        features,
        arguments,
    }
}

/// Builds a binary of the workspace and returns its path.
fn build(invocation: &Invocation, workspace: &Path, binary: &str) -> Result<PathBuf, String> {
    let features: Vec<String> = [&invocation.backend]
        .into_iter()
        .chain(&invocation.features)
        .map(|feature| format!("iiet-cli/{feature}"))
        .collect();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--bin", binary]);
    // All members together, as in building the tests, which gives the same features of Burn. With another
    // backend flex stays compiled in, for `--device cpu`.
    cargo.args(["--workspace", "--features", &features.join(",")]);
    // The binary's path depends on CARGO_TARGET_DIR and on configuration files, so cargo reports it.
    let output = cargo
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("building {binary} failed"));
    }
    executable(&String::from_utf8_lossy(&output.stdout), binary)
        .ok_or_else(|| format!("cargo did not report the path of {binary}"))
}

/// The path in cargo's message `{"reason":"compiler-artifact", .. "executable":"/path/to/iiet" ..}`.
fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    let name = format!("\"name\":\"{binary}\"");
    let marker = "\"executable\":\"";
    let lines = messages
        .lines()
        .filter(|line| line.contains("\"kind\":[\"bin\"]"));
    let line = lines
        .filter(|line| line.contains(&name))
        .find(|line| line.contains(marker))?;
    let start = line.find(marker)? + marker.len();
    let path = &line[start..start + line[start..].find("\",")?];
    Some(PathBuf::from(
        path.replace("\\\\", "\\").replace("\\\"", "\""),
    ))
}

#[cfg(unix)]
fn torment(arguments: &[OsString], workspace: &Path, iiet: &Path) -> Result<ExitCode, String> {
    torture::run(arguments, workspace, iiet).map_err(|error| format!("torture: {error:#}"))
}

#[cfg(not(unix))]
fn torment(_: &[OsString], _: &Path, _: &Path) -> Result<ExitCode, String> {
    Err("torture needs Unix: it kills with SIGKILL and mounts small disks".into())
}

#[cfg(unix)]
fn run(command: &mut Command) -> Result<ExitCode, String> {
    use std::os::unix::process::CommandExt;
    // iiet replaces this process, so that signals and the exit code are its own.
    Err(format!("cannot run iiet: {}", command.exec()))
}

#[cfg(not(unix))]
fn run(command: &mut Command) -> Result<ExitCode, String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot run iiet: {error}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Invocation, String> {
        parse(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn options_before_the_command_are_parsed() {
        let invocation = parsed(&["--backend", "wgpu", "train", "--backend", "x"]).unwrap();
        assert_eq!(invocation.backend, "wgpu");
        assert_eq!(invocation.arguments, ["train", "--backend", "x"]);
        assert_eq!(parsed(&["info"]).unwrap().backend, "flex");
        let invocation = parsed(&["--features", "parquet,x", "data"]).unwrap();
        assert_eq!(invocation.features, ["parquet", "x"]);
    }

    #[test]
    fn errors_describe_the_mistake() {
        let error = parsed(&["--backend", "torch", "train"]).unwrap_err();
        assert_eq!(
            error,
            "--backend torch; allowed: flex, ndarray, wgpu, vulkan, cuda"
        );
        assert_eq!(
            parsed(&["--backend"]).unwrap_err(),
            "--backend needs a value"
        );
        assert_eq!(
            parsed(&["--fast", "train"]).unwrap_err(),
            "unknown option --fast"
        );
    }

    #[test]
    fn the_path_is_parsed_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"iiet_data"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"xtask"},"executable":"/t/xtask","fresh":true}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"iiet"},"executable":"/t/debug/iiet","fresh":true}"#,
        );
        assert_eq!(
            executable(messages, "iiet"),
            Some(PathBuf::from("/t/debug/iiet"))
        );
        assert_eq!(executable("", "iiet"), None);
    }
}
