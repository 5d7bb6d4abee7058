//! The commands as users run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden/models")
        .join(case)
}

fn read_f32(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    view.data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn logits_equal_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for case in ["iiet-r3-gqa-untied", "euler-gqa-untied"] {
        let model = golden(case);
        let reference = model.join("case.safetensors");
        let bytes = fs::read(&reference).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids = file.tensor("input_ids").unwrap();
        let rows: Vec<String> = ids
            .data()
            .chunks_exact(8 * ids.shape()[1])
            .map(|row| {
                let ids = row
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",")
            })
            .collect();
        let (model, out_text) = (model.display().to_string(), out.display().to_string());
        let output = iiet(&[
            "logits",
            "--model",
            &model,
            "--ids",
            &rows.join(";"),
            "--out",
            &out_text,
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let (found, expected) = (read_f32(&out, "logits"), read_f32(&reference, "logits"));
        assert_eq!(found.len(), expected.len());
        let largest = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(largest < 2e-4, "{case}: {largest}");
    }
}

#[test]
fn info_prints_the_expected_counts() {
    let output = iiet(&[
        "info",
        "--model",
        &golden("e-iiet-3-1-0").display().to_string(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    // Three layers with 3, 1 and 0 corrections: 4 + 2 + 1 evaluations.
    for expected in [
        "solver                     iterative_implicit_euler",
        "iterations                 [3, 1, 0]",
        "evaluations per token      7 (2.33 per layer)",
        // Keys and values of 32 floats of 4 bytes, seven times.
        "keys and values per token  1792 bytes in f32",
        // 101 x 32 embedding, three layers of 4 x 32 x 32 + 3 x 32 x 56 + 2 x 32, a norm of 32,
        // two 4 x 4 histories and six LayerNorms of 2 x 32.
        "parameters                 32288",
    ] {
        assert!(report.contains(expected), "{report}");
    }
}

/// A small LLaMA and small data sets, which the tests of the evaluation have.
fn evaluation(part: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../eval/tests")
        .join(part)
        .display()
        .to_string()
}

#[test]
fn an_evaluation_writes_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/results.json");
    let (model, data) = (evaluation("models/bos"), evaluation("harness/data"));
    let out_text = out.display().to_string();
    let common = [
        "--tasks",
        "boolq,lambada_openai",
        "--data",
        &data,
        "--out",
        &out_text,
    ];
    let mut arguments = vec!["eval", "--model", &model];
    // Passages are longer than the model's context, so they lose their beginnings.
    arguments.extend(common);
    arguments.extend(["--limit", "5", "--num-fewshot", "1", "--log-samples"]);
    let output = iiet(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let results = json(&out);
    let acc = results["results"]["boolq"]["acc,none"].as_f64().unwrap();
    let printed = text(&output.stdout);
    assert!(printed.contains(&format!("{acc:.4}")), "{printed}");
    assert_eq!(results["n-shot"]["boolq"], 1);
    assert_eq!(results["n-samples"]["boolq"]["effective"], 5);
    assert_eq!(
        results["higher_is_better"]["lambada_openai"]["perplexity"],
        false
    );
    assert_eq!(results["config"]["model_hash"].as_str().unwrap().len(), 64);
    let written = fs::read_dir(folder.path().join("new")).unwrap();
    let mut written = written.map(|entry| entry.unwrap().path());
    let samples = written.find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("samples_boolq_20") && name.ends_with(".jsonl")
    });
    let samples = samples.unwrap();
    let samples: Vec<serde_json::Value> = fs::read_to_string(samples)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(samples.len(), 5);
    let mean = samples.iter().map(|sample| sample["acc"].as_f64().unwrap());
    assert!((mean.sum::<f64>() / 5.0 - acc).abs() < 1e-12);
    let hash = results["task_hashes"]["boolq"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    assert!(text(&output.stderr).contains(&format!("hash {}", &hash[..16])));
    assert_eq!(results["data"]["boolq"]["split"], "validation");
    // Two answers: half of them are right by guessing.
    assert_eq!(results["chance"]["boolq"], 0.5);
    assert!(printed.contains("| 0.5000 |"), "{printed}");
    // The rule that text is encoded by, beside the results.
    assert!(
        printed.contains(": text as tokenizer.json says, "),
        "{printed}"
    );

    // A model against itself: no difference, and none claimed.
    let mut arguments = vec!["eval", "--model", &model, "--model", &model];
    arguments.extend(common);
    let output = iiet(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = json(&out);
    assert_eq!(results["differences"][0]["difference"], 0.0);
    assert_eq!(results["differences"][0]["verdict"], "undecided");
    assert!(results["b"]["results"]["boolq"]["acc,none"].is_number());
}

#[test]
fn a_failing_task_does_not_affect_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (evaluation("models/plain"), evaluation("harness/data"));
    // An answer longer than the model's context of 32 tokens.
    let piqa = folder.path().join("data/piqa");
    fs::create_dir_all(&piqa).unwrap();
    let long = format!(
        "{{\"goal\": \"a\", \"sol1\": \"{}\", \"sol2\": \"b\", \"label\": 1}}\n",
        "zq".repeat(40)
    );
    fs::write(piqa.join("validation.jsonl"), long).unwrap();
    let texts = folder.path().join("data/text");
    fs::create_dir_all(&texts).unwrap();
    fs::copy(
        Path::new(&data).join("boolq/validation.jsonl"),
        texts.join("some.txt"),
    )
    .unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out.json"));
    let (data, out_text) = (data.display().to_string(), out.display().to_string());
    let arguments = [
        "eval",
        "--model",
        &model,
        "--tasks",
        "text,piqa",
        "--data",
        &data,
        "--out",
        &out_text,
    ];
    let output = iiet(&arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("piqa: the continuation has 81 tokens"),
        "{error}"
    );
    let results: serde_json::Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert!(results["results"]["text"]["bits_per_byte,none"].is_number());
    let failed = results["failed"]["piqa"].as_str().unwrap();
    assert!(
        failed.contains("the continuation has 81 tokens"),
        "{failed}"
    );
    assert_eq!(results["not_yet_evaluated"], serde_json::json!([]));
}

/// Nothing but a regular file is replaced, and nothing is computed for it.
#[cfg(unix)]
#[test]
fn results_do_not_replace_devices_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (evaluation("models/bos"), evaluation("harness/data"));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let link = link.display().to_string();
    for (out, found) in [("/dev/null", "device"), (&link, "symbolic link")] {
        for arguments in [
            vec!["logits", "--ids", "1,2"],
            vec!["eval", "--tasks", "boolq", "--data", &data],
            vec!["compare", "--tasks", "boolq", "--data", &data],
            vec!["influence", "--data", "nowhere"],
        ] {
            let more = ["--model", &model, "--out", out];
            let output = iiet(&[&arguments[..], &more].concat());
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
            let expected = format!("--out {out}: is a {found}; allowed: a regular file");
            assert!(error.contains(&expected), "{arguments:?}: {error}");
        }
    }
}

#[test]
fn a_report_has_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let (teacher, data) = (evaluation("models/bos"), evaluation("harness/data"));
    let student = folder.path().join("student").display().to_string();
    let convert = ["convert", "--model", &teacher, "--out", &student];
    let solver = ["--solver", "implicit_euler", "--set", "iterations=2"];
    let output = iiet(&[&convert[..], &solver[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));

    let out = folder.path().join("new/report.json");
    let out_text = out.display().to_string();
    let models = ["compare", "--model", &teacher, "--model", &student];
    let tasks = ["--tasks", "wikitext,sciq,arc_easy", "--data", &data];
    let output = iiet(&[&models[..], &tasks[..], &["--out", &out_text]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let models = json["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for model in models {
        let quality = &model["quality"];
        for (number, decimals) in [
            (&quality["bits_per_byte"]["value"], 4),
            (&quality["accuracy"]["standard_error"], 4),
            (&model["speed"]["decoding"], 1),
        ] {
            let number = format!("{:.decimals$}", number.as_f64().unwrap());
            assert!(printed.contains(&number), "{number}: {printed}");
        }
        assert_eq!(quality["tasks"].as_array().unwrap().len(), 3);
        assert_eq!(model["model_hash"].as_str().unwrap().len(), 64);
    }
    assert_eq!(models[0]["cost"]["evaluations"], 2);
    assert_eq!(models[1]["cost"]["evaluations"], 6);
    assert_eq!(models[1]["cost"]["share_of_evaluations"], 3.0);
    assert_eq!(models[1]["iterations"], serde_json::json!([2, 2]));
    assert_eq!(models[0]["quality"]["retention"]["value"], 1.0);
    assert_eq!(json["workload"]["batch"], 1);
    assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
    let svg = fs::read_to_string(out.with_extension("svg")).unwrap();
    assert!(svg.contains("student") && svg.contains("MFLOPs per token"));
}

#[test]
fn errors_are_one_line_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("rk4").display().to_string();
    let llama = evaluation("models/bos");
    let missing = folder.path().join("missing").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "[model]\nd_model = \"wide\"\n").unwrap();
    let broken = broken.display().to_string();
    let svg = folder.path().join("report.svg").display().to_string();
    // A file where a folder is needed.
    let no_folder = format!("{broken}/x");
    for (arguments, expected) in [
        (vec!["info", "--model", &missing], "config.json"),
        (
            vec!["logits", "--model", &model, "--ids", "1,101", "--out", &out],
            "--ids: 101; allowed: 0 to 100",
        ),
        (
            vec![
                "logits", "--model", &model, "--ids", "1,2", "--out", &no_folder,
            ],
            "broken.toml: ",
        ),
        (vec!["train", "--config", &missing], "missing"),
        (vec!["train", "--config", &broken], "line 2"),
        (vec!["data", "inspect", &missing], "missing"),
        (
            vec!["eval", "--model", &llama, "--tasks", "arc"],
            "no task is called \"arc\"; the tasks are addition, arc_challenge, arc_easy",
        ),
        (
            vec![
                "eval", "--model", &llama, "--tasks", "text", "--data", &missing,
            ],
            "there is no such folder or file",
        ),
        (
            vec![
                "eval", "--model", &model, "--tasks", "text", "--data", &broken,
            ],
            "tokenizer.json",
        ),
        (
            vec![
                "eval", "--model", &missing, "--tasks", "text", "--data", &broken,
            ],
            "config.json",
        ),
        (vec!["compare", "--model", &model], "tokenizer.json"),
        (
            vec![
                "compare", "--model", &llama, "--tasks", "sciq", "--data", &missing,
            ],
            "there is no such folder or file",
        ),
        (
            vec!["compare", "--model", &llama, "--out", &svg],
            "allowed is a file for JSON",
        ),
    ] {
        let output = iiet(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
        assert_eq!(
            error.matches("os error").count().max(1),
            1,
            "said twice: {error}"
        );
    }
}

#[test]
fn corrections_are_chosen_when_a_model_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("iiet-r3-gqa-untied").display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let logits = |model: &str, more: &[&str]| {
        let out = path("logits.safetensors");
        let ask = ["logits", "--model", model, "--ids", "1,2,3;7,5,9"];
        let output = iiet(&[&ask[..], &["--out", &out], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (read_f32(out.as_ref(), "logits"), text(&output.stderr))
    };
    // The same as a directory with that schedule, also above the trained three.
    for (given, set) in [
        ("1", "iterations=1"),
        ("0,2,1", "iterations=[0,2,1]"),
        ("5", "iterations=5"),
    ] {
        let converted = path(set);
        let solver = ["--solver", "iterative_implicit_euler", "--set", set];
        let convert = ["convert", "--model", &model, "--out", &converted];
        let output = iiet(&[&convert[..], &solver[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let (expected, _) = logits(&converted, &[]);
        let (found, said) = logits(&model, &["--iterations", given]);
        assert_eq!(found, expected, "{given}");
        assert_eq!(said, "");
        assert_ne!(found, logits(&model, &[]).0);
    }
    // A tolerance that nothing meets changes nothing, and one that all meet leaves one correction.
    let three = logits(&model, &[]).0;
    let (found, said) = logits(&model, &["--tolerance", "1e-30"]);
    assert_eq!(found, three);
    assert!(said.contains("corrections: 3.000 a token"), "{said}");
    let (found, said) = logits(&model, &["--tolerance", "1e30"]);
    assert_eq!(found, logits(&model, &["--iterations", "1"]).0);
    assert!(said.contains("corrections: 1.000 a token"), "{said}");

    let euler = golden("rk4").display().to_string();
    for (model, more, expected) in [
        (
            &euler,
            ["--iterations", "2"],
            "--iterations: the model's solver has no such option: unknown field `iterations`",
        ),
        (
            &model,
            ["--iterations", "1,2"],
            "iterations lists 2 layers, the model has 3",
        ),
        (
            &model,
            ["--tolerance", "-1"],
            "tolerance is -1.0; allowed: finite and above 0",
        ),
    ] {
        let out = path("none.safetensors");
        let ask = ["logits", "--model", model, "--ids", "1", "--out", &out];
        let output = iiet(&[&ask[..], &more].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
