//! Plans of runs over several processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn plan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
    command.arg("plan").args(arguments).output().unwrap()
}

fn preset(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/{name}.toml"));
    path.display().to_string()
}

fn planned(arguments: &[&str]) -> Value {
    let output = plan(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    let output = plan(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn large_presets_are_planned_for_many_ranks() {
    for (name, billions) in [("3b", 2.9..3.3), ("7b", 6.6..6.9)] {
        let config = preset(name);
        for ranks in ["8", "64", "512"] {
            let arguments = ["--config", &config, "--peak", "400", "--bandwidth", "50"];
            let plan = planned(&[&arguments[..], &["--ranks", ranks]].concat());
            let parameters = plan["parameters"].as_f64().unwrap();
            assert!(
                billions.contains(&(parameters / 1e9)),
                "{name}: {parameters}"
            );
            let ranks: f64 = ranks.parse().unwrap();
            let of = |kind: &str| plan["memory"][kind].as_f64().unwrap();
            assert_eq!(of("weights"), 4.0 * parameters);
            assert!((of("moments") - 8.0 * parameters / ranks).abs() <= 1.0);
            let sent = plan["sent"]["gradients"].as_f64().unwrap();
            let share = (ranks - 1.0) / ranks * 4.0 * parameters;
            assert!((sent - share).abs() <= 1.0, "{sent} {share}");
            let efficiency = plan["efficiency"].as_f64().unwrap();
            assert!(
                (0.1..1.0).contains(&efficiency),
                "{name} {ranks}: {efficiency}"
            );
        }
    }
}

#[test]
fn the_table_says_what_does_not_fit_and_what_would() {
    let config = preset("3b");
    let arguments = [
        "--config",
        &config,
        "--peak",
        "400",
        "--bandwidth",
        "50",
        "--ranks",
        "8",
    ];
    let more = ["--memory", "30", "--set", "train.shard=none"];
    let output = plan(&[&arguments[..], &more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "devices                    8 ranks with 1 each",
        "1048576 tokens: 512 micro-batches, 64 on each device",
        "does not fit: ",
        " of 30.0 GiB a device; the most are moments ",
        "--set train.shard=optimizer: ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let output = plan(&[&arguments[..], &["--memory", "141"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nfits: "), "{text}");
}

#[test]
fn a_plan_without_a_speed_times_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let small = "[model]\nd_model = 16\nd_ff = 32\nn_heads = 2\nn_layers = 2\nseq_len = 16\n\
                 solver = 'explicit_euler'\n[data]\nvocab_size = 300\nsource = 'text.txt'\n\
                 [train]\nsteps = 8\nbatch = 4\naccumulation = 8\nlr = 1e-2\n";
    let pairs = "[model]\nd_model = 16\nd_ff = 32\nn_heads = 2\nn_layers = 2\nseq_len = 16\n\
                 solver = 'runge_kutta'\n[model.encoder]\nn_layers = 1\nsolver = 'explicit_euler'\n\
                 [data]\nvocab_size = 300\nsource = 'cargo-docs'\n\
                 [train]\nsteps = 8\nbatch_tokens = 64\naccumulation = 8\nlr = 1e-2\n";
    for (name, text) in [("small.toml", small), ("pairs.toml", pairs)] {
        let path: PathBuf = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let config = path.display().to_string();
        let arguments = [
            "--config",
            &config,
            "--ranks",
            "2",
            "--devices-per-rank",
            "2",
        ];
        let plan = planned(&[&arguments[..], &["--bandwidth", "1"]].concat());
        assert!(plan["speed"]["micro_batch"].as_f64().unwrap() > 0.0);
        assert_eq!(plan["micro_batches"], 2);
        assert_eq!(plan["tokens_per_step"], 8 * 64);
    }
}

#[test]
fn invalid_arguments_are_refused_before_any_work() {
    let config = preset("7b");
    let arguments = |more: &[&'static str]| {
        let given = ["--config", &config, "--peak", "400"];
        refusal(&[&given[..], more].concat())
    };
    for (more, expected) in [
        (&["--ranks", "0"][..], "allowed: 1 to 2^20"),
        (&["--ranks=-1"], "allowed: 1 to 2^20"),
        (&["--devices-per-rank", "0"], "allowed: 1 to 2^20"),
        (&["--ranks", "8"], "--ranks 8 needs --bandwidth GB/s"),
        (&["--bandwidth", "0"], "allowed: finite and above 0"),
        (&["--bandwidth=-3"], "allowed: finite and above 0"),
        (&["--bandwidth", "NaN"], "allowed: finite and above 0"),
        (&["--bandwidth", "inf"], "allowed: finite and above 0"),
        (&["--memory", "fast"], "allowed: finite and above 0"),
        (
            &["--ranks", "24", "--bandwidth", "50"],
            "a multiple of 24, the number of devices of all ranks; 504 and 528 are the nearest",
        ),
        (
            &[
                "--ranks",
                "512",
                "--devices-per-rank",
                "8",
                "--bandwidth",
                "50",
            ],
            "a multiple of 4096, the number of devices of all ranks; 4096 is the least",
        ),
        (&["--set", "train.shard=all"], "train.shard=all"),
    ] {
        let message = arguments(more);
        assert!(message.contains(expected), "{more:?}: {message}");
    }
    let message = refusal(&["--config", &config, "--peak", "0"]);
    assert!(message.contains("allowed: finite and above 0"), "{message}");
    // More than the machines have that run this test.
    let large = ["--set", "model.d_model=16384", "--set", "model.d_ff=65536"];
    let message = refusal(&[&["--config", &config[..]][..], &large].concat());
    assert!(message.contains("give --peak TFLOP/s"), "{message}");
}
