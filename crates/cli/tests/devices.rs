//! `--device` and `iiet devices` in a binary built with flex alone, as the tests build it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

fn logits(device: &[&str], out: &Path) -> Output {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/rk4");
    let (model, out) = (golden.display().to_string(), out.display().to_string());
    let mut arguments = vec!["logits", "--model", &model, "--ids", "1,2,3", "--out", &out];
    arguments.extend(device);
    iiet(&arguments)
}

#[test]
fn the_cpu_has_three_names() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<Vec<u8>> = [&[][..], &["--device", "cpu"], &["--device", "flex"]]
        .iter()
        .map(|device| {
            let out = folder.path().join("logits.safetensors");
            let output = logits(device, &out);
            assert!(output.status.success(), "{output:?}");
            fs::read(out).unwrap()
        })
        .collect();
    assert!(files[0] == files[1] && files[1] == files[2]);
}

#[test]
fn a_device_that_is_not_there_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for (device, expected) in [
        (
            "cuda:0",
            "error: --device cuda:0: this iiet was built with flex; `cargo xtask --backend cuda ..` \
             builds one with cuda (with cargo alone: `--features cuda`)\n",
        ),
        (
            "vulkan",
            "error: --device vulkan:0: this iiet was built with",
        ),
        (
            "ndarray",
            "error: --device ndarray: this iiet was built with",
        ),
        (
            "gpu",
            "error: invalid value 'gpu' for '--device <DEVICE>': allowed: cpu, flex",
        ),
        ("flex:1", "flex is one device and takes no number"),
    ] {
        let output = logits(&["--device", device], &out);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{device}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn devices_are_listed() {
    let output = iiet(&["devices"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap();
    assert!(
        first.trim().starts_with("flex") && first.contains("(default)"),
        "{text}"
    );
    assert!(
        text.contains("not compiled in: cuda, vulkan, wgpu, ndarray"),
        "{text}"
    );
}
