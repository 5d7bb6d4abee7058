//! `iiet generate` and `iiet convert`, against the results of transformers on the same directories
//! (`llama/make.py`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use safetensors::SafeTensors;
use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
    command.args(arguments);
    command
}

fn iiet(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Standard output of a run that must succeed.
fn text_of(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn generate(model: &str, prompt: &str, more: &[&str]) -> String {
    let start = ["generate", "--model", model, "--prompt", prompt];
    text_of(&iiet(&[&start, more].concat()))
}

fn error_of(arguments: &[&str]) -> String {
    let output = iiet(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(
        output.stdout.is_empty(),
        "{arguments:?} wrote to standard output"
    );
    assert!(!error.contains("panicked"), "{error}");
    error
}

fn llama(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/llama")
        .join(name)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

const BOTH: [&str; 2] = ["sentence-piece", "byte-level"];

fn expected(name: &str) -> Value {
    serde_json::from_slice(&fs::read(llama(name).join("expected.json")).unwrap()).unwrap()
}

/// A copy of a directory, to be damaged.
fn copy(name: &str, to: &Path) -> String {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(llama(name)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    shown(to)
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{}: no {from}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn greedy_text_equals_transformers() {
    let folder = tempfile::tempdir().unwrap();
    for name in BOTH {
        let model = shown(&llama(name));
        let cases = expected(name)["greedy"].as_array().unwrap().clone();
        assert!(cases.iter().any(|case| case["ended"] == true));
        let prompts: Vec<String> = cases
            .iter()
            .map(|case| case["prompt"].to_string())
            .collect();
        let file = folder.path().join("prompts.jsonl");
        fs::write(&file, prompts.join("\n")).unwrap();
        let file = shown(&file);
        let batch = |more: &[&str]| -> Vec<Value> {
            let start = [
                "generate",
                "--model",
                &model,
                "--batch",
                &file,
                "--max-tokens",
                "40",
            ];
            let lines = text_of(&iiet(&[&start, more].concat()));
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let batches = [batch(&[]), batch(&["--batch-size", "1"])];
        for (i, case) in cases.iter().enumerate() {
            let (prompt, text) = (
                case["prompt"].as_str().unwrap(),
                case["text"].as_str().unwrap(),
            );
            let found = generate(&model, prompt, &["--max-tokens", "40"]);
            assert_eq!(found, format!("{text}\n"), "{name}: {prompt:?}");
            for batch in &batches {
                assert_eq!(batch[i]["prompt"], prompt);
                assert_eq!(batch[i]["text"], text[prompt.len()..], "{name}: {prompt:?}");
                assert_eq!(batch[i]["tokens"], case["tokens"]);
                let end = if case["ended"] == true {
                    "token"
                } else {
                    "length"
                };
                assert_eq!(batch[i]["end"], end);
            }
        }
    }
}

#[test]
fn logits_equal_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for name in BOTH {
        let expected = expected(name);
        let ids = expected["ids"].to_string().replace(['[', ']'], "");
        let model = shown(&llama(name));
        text_of(&iiet(&[
            "logits",
            "--model",
            &model,
            "--ids",
            &ids,
            "--out",
            &shown(&out),
        ]));
        let last: Vec<f64> = serde_json::from_value(expected["last_logits"].clone()).unwrap();
        let found = logits(&out);
        let found = &found[found.len() - last.len()..];
        for (a, b) in found.iter().zip(&last) {
            assert!((f64::from(*a) - b).abs() < 1e-4, "{name}: {a}, not {b}");
        }
    }
}

fn logits(file: &Path) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("logits").unwrap();
    let values = view.data().chunks_exact(4);
    values
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn a_prompt_comes_from_standard_input() {
    let model = shown(&llama("byte-level"));
    let arguments = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "-",
        "--max-tokens",
        "5",
    ];
    let mut child = command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all("  two spaces\n".as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        text_of(&output),
        generate(&model, "  two spaces", &["--max-tokens", "5"])
    );
    // Text alone on standard output, speeds beside it.
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("prefill: ") && error.contains("tokens/s"),
        "{error}"
    );
}

#[test]
fn the_seed_determines_the_text() {
    let model = shown(&llama("sentence-piece"));
    let draw = |seed| {
        let more = [
            "--temperature",
            "1.5",
            "--top-k",
            "50",
            "--max-tokens",
            "20",
            "--seed",
            seed,
        ];
        generate(&model, "Tim", &more)
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn stop_texts_and_sliding_contexts_work() {
    let model = shown(&llama("sentence-piece"));
    let whole = generate(&model, "a line\nanother line", &["--max-tokens", "40"]);
    let stop = &whole["a line\nanother line".len() + 4..][..3];
    let more = ["--max-tokens", "40", "--stop", "never", "--stop", stop];
    let found = generate(&model, "a line\nanother line", &more);
    let place = whole["a line\nanother line".len()..].find(stop).unwrap();
    assert_eq!(
        found,
        format!("{}\n", &whole[.."a line\nanother line".len() + place])
    );

    let long = "Tim ".repeat(300);
    let arguments = [
        "generate",
        "--model",
        &model,
        "--prompt",
        &long,
        "--max-tokens",
        "70",
    ];
    let error = error_of(&arguments);
    for part in ["tokens, the model's context 256", "--sliding"] {
        assert!(error.contains(part), "{error}");
    }
    let found = text_of(&iiet(
        &[&arguments[..], &["--sliding", "--cache", "f16"]].concat(),
    ));
    assert!(found.starts_with(&long));
}

#[test]
fn a_llama_can_be_converted_to_an_ode_model() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (shown(&llama("byte-level")), folder.path().join("logits"));
    let logits_of = |model: &str| {
        text_of(&iiet(&[
            "logits",
            "--model",
            model,
            "--ids",
            "1,2,3,77",
            "--out",
            &shown(&out),
        ]));
        logits(&out)
    };
    let target = |name: &str| shown(&folder.path().join(name));
    let convert = |solver: &str, out: &str, more: &[&str]| {
        let start = [
            "convert", "--model", &model, "--solver", solver, "--out", out,
        ];
        text_of(&iiet(&[&start, more].concat()))
    };
    // The textbook implicit Euler without a correction is the model itself, to the last bit.
    let same = target("same");
    convert("implicit_euler", &same, &["--set", "iterations=0"]);
    assert_eq!(logits_of(&same), logits_of(&model));
    let prompt = ["--max-tokens", "10"];
    assert_eq!(
        generate(&same, "Once", &prompt),
        generate(&model, "Once", &prompt)
    );

    let iiet_model = target("iiet");
    convert(
        "iterative_implicit_euler",
        &iiet_model,
        &["--set", "iterations=[2, 1]", "--dtype", "bf16"],
    );
    let info = text_of(&iiet(&["info", "--model", &iiet_model]));
    // Two key/value heads of 8, keys and values, five evaluations: 160 numbers.
    for expected in [
        "iterations                 [2, 1]",
        "keys and values per token  640 bytes in f32, 320 in f16 or bf16",
    ] {
        assert!(info.contains(expected), "{info}");
    }
    assert_ne!(logits_of(&iiet_model), logits_of(&model));
    generate(&iiet_model, "Once", &prompt);
    // And back: explicit Euler reads none of what was added.
    let back = target("back");
    let start = [
        "convert",
        "--model",
        &iiet_model,
        "--out",
        &back,
        "--solver",
    ];
    text_of(&iiet(&[&start[..], &["explicit_euler"]].concat()));
    assert_eq!(logits_of(&back), logits_of(&model));

    for (arguments, expected) in [
        (vec!["--solver", "leapfrog"], "unknown variant `leapfrog`"),
        (
            vec!["--solver", "runge_kutta", "--set", "iterations=3"],
            "unknown field `iterations`, expected `predictor_order`",
        ),
        (
            vec!["--solver", "runge_kutta", "--set", "predictor_order=3"],
            "allowed: 2, 4",
        ),
        (
            vec![
                "--solver",
                "implicit_euler",
                "--set",
                "iterations=[1, 2, 3]",
            ],
            "the model has 2",
        ),
        (
            vec!["--solver", "implicit_euler", "--set", "iterations=x"],
            "--set iterations=x",
        ),
    ] {
        let unwritten = target("unwritten");
        let start = ["convert", "--model", &model, "--out", &unwritten];
        let error = error_of(&[&start[..], &arguments].concat());
        assert!(error.contains(expected), "{error}");
        assert!(!Path::new(&unwritten).exists());
    }
    let again = [
        "convert",
        "--model",
        &model,
        "--out",
        &same,
        "--solver",
        "explicit_euler",
    ];
    assert!(error_of(&again).contains("is not empty"));
}

#[test]
fn convert_to_transformers_keeps_the_solver_and_names_what_transformers_needs() {
    let folder = tempfile::tempdir().unwrap();
    let target = |name: &str| shown(&folder.path().join(name));
    let (model, iiet_model, again) = (target("start"), target("iiet"), target("again"));
    copy("sentence-piece", Path::new(&model));
    fs::remove_file(Path::new(&model).join("tokenizer_config.json")).unwrap();
    let to = |from: &str, out: &str, solver: &[&str]| {
        let start = [
            "convert",
            "--model",
            from,
            "--to",
            "transformers",
            "--out",
            out,
        ];
        text_of(&iiet(&[&start, solver].concat()));
        let read = |name: &str| fs::read_to_string(Path::new(out).join(name)).unwrap();
        let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let config = json(read("config.json"));
        assert_eq!(
            json(read("tokenizer_config.json"))["tokenizer_class"],
            "LlamaTokenizerFast"
        );
        assert_eq!(
            config["auto_map"].is_object(),
            config["model_type"] == "iiet"
        );
        config
    };
    let plain = to(&model, &again, &[]);
    assert_eq!(plain["architectures"][0], "LlamaForCausalLM");
    to(
        &model,
        &iiet_model,
        &["--solver", "runge_kutta", "--set", "predictor_order=4"],
    );
    let kept = to(&iiet_model, &target("kept"), &[]);
    assert_eq!(
        (&kept["solver"], &kept["predictor_order"]),
        (&"runge_kutta".into(), &4.into())
    );

    // Misuse of the command line.
    for (reader, expected) in [
        (&[][..], "--solver"),
        (&["--to", "onnx"][..], "transformers"),
    ] {
        let nothing = target("nothing");
        let start = ["convert", "--model", &model, "--out", &nothing];
        let output = iiet(&[&start, reader].concat());
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn unusable_directories_are_errors_naming_the_problem() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let path = folder.path().join(name);
        let model = copy("byte-level", &path);
        damage(&path);
        error_of(&[
            "generate",
            "--model",
            &model,
            "--prompt",
            "Once",
            "--max-tokens",
            "1",
        ])
    };
    let config = |from: &'static str, to: &'static str| {
        move |path: &Path| replace(&path.join("config.json"), from, to)
    };
    let remove = |name: &'static str| move |path: &Path| fs::remove_file(path.join(name)).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage, &str); 9] = [
        (
            "bias",
            &config("\"attention_bias\": false", "\"attention_bias\": true"),
            "missing   model.layers.0.self_attn.q_proj.bias [32]",
        ),
        (
            "mlp",
            &config("\"mlp_bias\": false", "\"mlp_bias\": true"),
            "mlp_bias is true",
        ),
        (
            "head",
            &config("\"head_dim\": 8", "\"head_dim\": 16"),
            "misshapen model.layers.0.self_attn.q_proj.weight [32, 32], expected [64, 32]",
        ),
        (
            "kind",
            &config("\"model_type\": \"llama\"", "\"model_type\": \"gemma2\""),
            "model_type is gemma2",
        ),
        (
            "rope",
            &config("\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\""),
            "rope_scaling is",
        ),
        (
            "shard",
            &remove("model-00002-of-00002.safetensors"),
            "model-00002-of-00002.safetensors",
        ),
        (
            "index",
            &remove("model.safetensors.index.json"),
            "no weights",
        ),
        (
            "words",
            &remove("tokenizer.json"),
            "tokenizer.json: no such file",
        ),
        (
            "end",
            &|path| {
                fs::write(
                    path.join("generation_config.json"),
                    "{\"eos_token_id\": [1, 999]}",
                )
                .unwrap()
            },
            "eos_token_id is 999",
        ),
    ];
    for (name, damage, expected) in cases {
        let error = damaged(name, damage);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn invalid_numbers_are_errors() {
    let model = shown(&llama("sentence-piece"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    fs::write(&file, "\"fits\"\n{\"prompt\": 7}\n").unwrap();
    let file = shown(&file);
    for (arguments, expected) in [
        (
            vec!["--prompt", "x", "--temperature", "-1"],
            "temperature is -1",
        ),
        (
            vec!["--prompt", "x", "--top-p", "0"],
            "top_p is 0; allowed: above 0, up to 1",
        ),
        (vec!["--batch", "/nowhere.txt"], "/nowhere.txt"),
        (vec!["--batch", &file], "line 2"),
    ] {
        let start = ["generate", "--model", &model];
        // A negative number is an argument, not another flag.
        let arguments: Vec<String> = [&start[..], &arguments]
            .concat()
            .iter()
            .map(|a| (*a).into())
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = error_of(&arguments);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn negative_numbers_are_parsed_as_values_and_rejected() {
    let model = shown(&llama("sentence-piece"));
    for (option, expected) in [
        ("--min-p", "min_p is -1; allowed: 0 to 1"),
        ("--top-p", "top_p is -1; allowed: above 0, up to 1"),
        ("--repetition-penalty", "repetition_penalty is -1"),
    ] {
        let arguments = ["generate", "--model", &model, "--prompt", "x", option, "-1"];
        let error = error_of(&arguments);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn prompts_are_limited_and_read_from_standard_input() {
    let model = shown(&llama("byte-level"));
    let start = ["generate", "--model", &model, "--max-tokens", "3"];
    let fed = |more: &[&str], input: &str| {
        let mut child = command(&[&start[..], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its input does not read all of it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let lines = text_of(&fed(&["--batch", "-"], "Once\n\nTim\n"));
    let prompts: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&prompts[0]["prompt"], &prompts[1]["prompt"]),
        (&"Once".into(), &"Tim".into())
    );
    let alone = generate(&model, "Tim", &["--max-tokens", "3"]);
    assert_eq!(
        format!("Tim{}\n", prompts[1]["text"].as_str().unwrap()),
        alone
    );

    let long = "x".repeat(100_000);
    let limit = ["--max-prompt-bytes", "99999"];
    for (more, expected) in [
        (["--batch", "-"], "-: line 1: more than 99999 bytes"),
        (
            ["--prompt", "-"],
            "standard input has more than 99999 bytes",
        ),
    ] {
        let output = fed(&[&more[..], &limit].concat(), &long);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains("--max-prompt-bytes sets the limit"),
            "{error}"
        );
    }
}
