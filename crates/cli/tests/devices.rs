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
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/golden/models/rk4");
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
fn a_missing_device_is_an_error_on_one_line() {
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
        ("flex:1", "flex has a single device and takes no number"),
        (
            "cuda:0,cuda:1",
            "error: invalid value 'cuda:0,cuda:1' for '--device <DEVICE>': this command takes one device; \
             only train and distill take several",
        ),
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
fn several_devices_that_cannot_train_together_are_an_error_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(
        path("config.toml"),
        "[model]\nd_model = 16\nd_ff = 32\nn_layers = 1\nn_heads = 2\nseq_len = 16\n\
         solver = 'explicit_euler'\n[train]\nsteps = 1\nbatch = 1\nlr = 1e-3\n",
    )
    .unwrap();
    let (config, run, teacher) = (path("config.toml"), path("run"), path("teacher"));
    let train = ["train", "--config", &config, "--run", &run, "--device"];
    let distil = [
        "distill",
        "--teacher",
        &teacher,
        "--config",
        &config,
        "--threshold",
        "0.1",
        "--run",
        &run,
        "--device",
    ];
    for command in [&train[..], &distil] {
        for (devices, expected) in [
            (
                "flex,flex",
                "error: --device flex,flex: several devices train together on cuda alone, and flex is \
                 another; name one\n",
            ),
            (
                "cuda:0,wgpu:1",
                "error: --device cuda:0,wgpu:1: several devices train together on cuda alone, and \
                 wgpu:1 is another; name one\n",
            ),
            (
                "cuda:1,cuda:1",
                "error: --device cuda:1,cuda:1: cuda:1 is named twice\n",
            ),
            (
                "cuda:0,cuda:1",
                "error: --device cuda:0: this iiet was built with flex; `cargo xtask --backend cuda ..` \
                 builds one with cuda (with cargo alone: `--features cuda`)\n",
            ),
            (
                "cuda:0,",
                "invalid value '' for '--device <DEVICE,..>': allowed: cpu",
            ),
        ] {
            let output = iiet(&[command, &[devices]].concat());
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{devices}");
            assert!(message.contains(expected), "{message}");
            assert!(!Path::new(&run).exists());
        }
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
