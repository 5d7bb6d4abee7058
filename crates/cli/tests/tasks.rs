//! A model of a synthetic task, from training to every command that takes a model.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn iiet(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

/// What a command prints that must succeed.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = iiet(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap() + &error
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_command_takes_a_model_of_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let config = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\n\
                  solver = { name = 'iterative_implicit_euler', iterations = 1 }\n\
                  [data]\nsource = { task = 'group', length = [4, 8] }\n\
                  [train]\nsteps = 40\nbatch = 16\nlr = 1e-2\nlog_every = 10\neval_every = 20\n\
                  eval_tokens = 1024\n";
    fs::write(at.join("words.toml"), config).unwrap();

    let shown = printed(at, &["data", "inspect", "--config", "words.toml"]);
    assert!(shown.contains("\"group\":\"S3\""), "{shown}");
    assert!(shown.contains("held out, length"), "{shown}");
    let shown = printed(at, &["data", "inspect", "--config", "words.toml", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["vocab_size"], 7);

    let train = ["train", "--config", "words.toml", "--run", "run"];
    let shown = printed(at, &train);
    assert!(
        shown.contains("new examples of task:group in each"),
        "{shown}"
    );
    assert!(shown.contains("% right; validation"), "{shown}");
    assert!(!shown.contains("bits"), "{shown}");
    let curve = fs::read_to_string(at.join("run/loss.svg")).unwrap();
    assert!(curve.contains("share of targets that were the most likely token"));

    let model = ["--model", "run/model"];
    let info = printed(at, &[&["info"][..], &model].concat());
    assert!(
        info.contains("vocabulary                 7 tokens"),
        "{info}"
    );
    let generate = ["generate", "--prompt", "(12) (123)", "--max-tokens", "1"];
    let product = printed(at, &[&generate[..], &model].concat());
    let symbols = ["e", "(23)", "(12)", "(123)", "(132)", "(13)"];
    let product = product.lines().next().unwrap().trim();
    assert!(
        product.split(' ').all(|word| symbols.contains(&word)),
        "{product}"
    );

    // Beyond the trained lengths, and beyond the context.
    let eval = [
        "eval",
        "--tasks",
        "group",
        "--limit",
        "70",
        "--out",
        "results.json",
    ];
    let table = printed(at, &[&eval[..], &model].concat());
    assert!(
        table.contains("acc@16") && table.contains("solved_90"),
        "{table}"
    );
    let results = json(&at.join("results.json"));
    let generated = &results["configs"]["group"]["generated"];
    assert_eq!(generated["trained"], serde_json::json!([4, 8]));
    assert_eq!(
        generated["difficulties"],
        serde_json::json!([4, 6, 8, 10, 12, 16])
    );
    assert!(results["results"]["group"]["acc@4_stderr,none"].is_number());
    let other = ["--set", "group.group=A5", "--limit", "6"];
    let output = iiet(
        at,
        &[&["eval", "--tasks", "group"][..], &other, &model].concat(),
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("the model has no token"), "{error}");

    // The same solver with one correction more, and the report on both.
    let convert = [
        "convert",
        "--solver",
        "iterative_implicit_euler",
        "--set",
        "iterations=2",
    ];
    printed(at, &[&convert[..], &model, &["--out", "more"]].concat());
    assert!(at.join("more/task.json").exists());
    let compare = [
        "compare",
        "--model",
        "more",
        "--limit",
        "60",
        "--out",
        "report.json",
    ];
    printed(at, &[&compare[..], &model].concat());
    let quality = &json(&at.join("report.json"))["models"][1]["quality"];
    assert_eq!(quality["tasks"][0]["task"], "group");
    assert!(quality["tasks"][0]["metrics"]["acc@8"]["value"].is_number());

    let influence = ["influence", "--tokens", "256", "--out", "influence.json"];
    printed(at, &[&influence[..], &model].concat());
    let influence = json(&at.join("influence.json"));
    assert_eq!(influence["influence"].as_array().unwrap().len(), 2);

    let student = "[data]\nsource = { task = 'group', length = [4, 8] }\n\
                   [train]\nsteps = 4\nbatch = 4\nlr = 1e-3\neval_tokens = 256\n";
    fs::write(at.join("student.toml"), student).unwrap();
    let distill = ["distill", "--teacher", "run/model", "--evaluations", "1.5"];
    let config = ["--config", "student.toml", "--run", "student"];
    let shown = printed(
        at,
        &[&distill[..], &config, &["--calibration-tokens", "256"]].concat(),
    );
    assert!(shown.contains("% right"), "{shown}");
    let report = json(&at.join("student/report.json"));
    assert_eq!(report["tasks"][0]["name"], "group");
    assert!(at.join("student/model/task.json").exists());
}
