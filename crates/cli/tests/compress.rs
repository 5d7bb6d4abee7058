//! `iiet quantize` and `iiet prune`, and what other commands make of their models.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;

/// A folder with a text and a model that was trained on it.
struct Place(tempfile::TempDir);

const MODEL: [&str; 2] = ["--model", "run"];
const DATA: [&str; 4] = ["--calibration", "train.tokens", "--tokens", "2000"];

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let lines = (0..400).map(|i| format!("{i} and {i} make {}.\n", 2 * i));
        fs::write(place.path("text.txt"), lines.collect::<String>()).unwrap();
        let text = "[model]\nd_model = 32\nd_ff = 64\nn_layers = 2\nn_heads = 2\nseq_len = 16\n\
                    solver = { name = 'iterative_implicit_euler', iterations = 2 }\ninitializer_range = 0.2\n\
                    [data]\nsource = 'text.txt'\nvocab_size = 300\nvalidation = 0.1\n\
                    [train]\nbatch = 4\nlr = 1e-2\nlog_every = 10\neval_every = 40\nsteps = 40\n";
        fs::write(place.path("small.toml"), text).unwrap();
        place.good(&["train", "--config", "small.toml", "--run", "run"]);
        let mut corpora = fs::read_dir(place.path("data")).unwrap();
        let corpus = corpora.find_map(|entry| {
            let tokens = entry.unwrap().path().join("train.tokens");
            tokens.exists().then_some(tokens)
        });
        fs::copy(corpus.unwrap(), place.path("train.tokens")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn iiet(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
        command.args(arguments).current_dir(self.0.path());
        command.output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.iiet(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn bad(&self, arguments: &[&str], expected: &str) {
        let output = self.iiet(arguments);
        let found = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        assert!(found.contains(expected), "{arguments:?}: {found}");
        assert!(!found.contains("panicked"), "{found}");
    }

    /// `iiet quantize` or `prune` of the trained model into a directory.
    fn write(&self, command: &str, out: &str, more: &[&str]) {
        let out = ["--out", out];
        self.good(&[&[command], &MODEL[..], &out[..], more].concat());
    }

    /// The share of zeros in the matrices of the layers.
    fn zeros(&self, model: &str) -> f64 {
        let bytes = fs::read(self.path(model).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let matrices = file
            .iter()
            .filter(|(name, _)| name.ends_with("_proj.weight"));
        let (mut zeros, mut all) = (0, 0);
        for (_, view) in matrices {
            let (weights, _) = view.data().as_chunks::<4>();
            zeros += weights
                .iter()
                .filter(|w| f32::from_le_bytes(**w) == 0.0)
                .count();
            all += weights.len();
        }
        zeros as f64 / all as f64
    }

    fn bytes(&self, model: &str) -> u64 {
        fs::metadata(self.path(model).join("model.safetensors"))
            .unwrap()
            .len()
    }

    /// Bits per byte of the text, by `iiet eval`.
    fn bits_per_byte(&self, model: &str) -> f64 {
        let out = format!("{model}.json");
        let data = ["--tasks", "text", "--data", "text.txt", "--limit", "40"];
        let arguments = ["eval", "--model", model, "--out", &out];
        self.good(&[&arguments[..], &data[..]].concat());
        let results: Value = serde_json::from_slice(&fs::read(self.path(&out)).unwrap()).unwrap();
        let found = &results["results"]["text"]["bits_per_byte,none"];
        found.as_f64().expect("the metric")
    }
}

#[test]
fn quantised_models_are_smaller_and_nearly_as_good() {
    let place = Place::new();
    let groups = ["--group", "32"];
    let (floats, before) = (place.bytes("run/model"), place.bits_per_byte("run/model"));
    for (out, more, share, loss) in [
        ("eight", vec!["--bits", "8"], 0.45, 0.01),
        ("four", vec!["--bits", "4"], 0.35, 1.0),
        ("zeros", vec!["--bits", "4", "--asymmetric"], 0.36, 1.0),
        (
            "rounded",
            vec!["--bits", "8", "--activations", "8"],
            0.45,
            0.05,
        ),
        (
            "gptq",
            [&["--bits", "4", "--method", "gptq"], &DATA[..]].concat(),
            0.35,
            1.0,
        ),
    ] {
        place.write("quantize", out, &[&more[..], &groups].concat());
        let found = place.bytes(out) as f64 / floats as f64;
        assert!(found < share, "{out}: {found} of the bytes");
        let after = place.bits_per_byte(out);
        assert!(
            (after - before).abs() < loss,
            "{out}: {after}, before {before}"
        );
        assert!(place.path(out).join("tokenizer.json").exists());
        let info = place.good(&["info", "--model", out]);
        let bits = match out {
            "eight" | "rounded" => "8 bits",
            _ => "4 bits",
        };
        assert_eq!(
            info.contains("inputs of products"),
            out == "rounded",
            "{info}"
        );
        assert!(
            info.contains(bits) && info.contains("groups of 32"),
            "{info}"
        );
        let text = [
            "generate",
            "--model",
            out,
            "--prompt",
            "12 and",
            "--max-tokens",
            "6",
        ];
        assert!(place.good(&text).starts_with("12 and"));
        let logits = [
            "logits",
            "--model",
            out,
            "--ids",
            "1,2,3",
            "--out",
            "logits.safetensors",
        ];
        place.good(&logits);
    }
    assert_ne!(place.bits_per_byte("eight"), place.bits_per_byte("rounded"));
    let inputs = [
        "quantize",
        "--bits",
        "8",
        "--activations",
        "4",
        "--out",
        "x",
    ];
    place.bad(&[&inputs[..], &MODEL].concat(), "[possible values: 8]");
    let floats = [
        &["quantize", "--out", "head"][..],
        &MODEL,
        &groups,
        &["--bits", "4", "--keep-embeddings"],
    ];
    place.good(&floats.concat());
    assert!(place.bytes("four") < place.bytes("head"));
    let models = [
        "compare",
        "--model",
        "run/model",
        "--model",
        "eight",
        "--model",
        "four",
    ];
    let data = ["--tasks", "text", "--data", "text.txt", "--limit", "10"];
    let table = place.good(&[&models[..], &data].concat());
    assert!(table.contains("eight") && table.contains("four"), "{table}");
}

#[test]
fn packed_models_are_refused_by_name_where_floats_are_needed() {
    let place = Place::new();
    place.write("quantize", "four", &["--bits", "4", "--group", "32"]);
    let packed = "four: has a quantization_config: its matrices have 8 or 4 bits";
    let init = [
        "train",
        "--config",
        "small.toml",
        "--run",
        "again",
        "--set",
        "train.init=four",
    ];
    place.bad(&init, packed);
    let teacher = [
        "distill",
        "--teacher",
        "four",
        "--schedule",
        "1",
        "--run",
        "student",
    ];
    place.bad(&[&teacher[..], &["--config", "small.toml"]].concat(), "");
    // As floats again, with what rounding left.
    place.good(&["convert", "--model", "four", "--out", "wide"]);
    let apart = place.bits_per_byte("wide") - place.bits_per_byte("four");
    assert!(apart.abs() < 1e-3, "{apart}");
    let init = [
        "train",
        "--config",
        "small.toml",
        "--run",
        "tuned",
        "--set",
        "train.init=wide",
    ];
    place.good(&[&init[..], &["--set", "train.steps=1"]].concat());
    let again = [
        "quantize", "--model", "four", "--bits", "8", "--out", "eight",
    ];
    place.bad(&again, packed);
    let prune = [
        "prune",
        "--model",
        "four",
        "--method",
        "magnitude",
        "--sparsity",
        "0.5",
    ];
    place.bad(&[&prune[..], &["--out", "pruned"]].concat(), packed);
    assert!(!place.path("again/model").exists() && !place.path("pruned").exists());
}

#[test]
fn pruned_models_are_ordinary_ones_and_stay_pruned_in_training() {
    let place = Place::new();
    for (out, more) in [
        (
            "magnitude",
            vec!["--method", "magnitude", "--sparsity", "0.5"],
        ),
        (
            "wanda",
            [&["--method", "wanda", "--sparsity", "2:4"], &DATA[..]].concat(),
        ),
        (
            "sparsegpt",
            [&["--method", "sparsegpt", "--sparsity", "0.5"], &DATA[..]].concat(),
        ),
    ] {
        place.write("prune", out, &more);
        assert_eq!(place.bytes(out), place.bytes("run/model"));
        assert!((place.zeros(out) - 0.5).abs() < 1e-3, "{out}");
    }
    let sets = [
        "--set",
        "train.init=wanda",
        "--set",
        "train.keep_zeros=true",
        "--set",
        "train.steps=4",
    ];
    place.good(
        &[
            &["train", "--config", "small.toml", "--run", "tuned"],
            &sets[..],
        ]
        .concat(),
    );
    assert!((place.zeros("tuned/model") - 0.5).abs() < 1e-3);
    // And quantised, too.
    let bits = [
        "quantize", "--model", "tuned", "--bits", "8", "--group", "32", "--out", "both",
    ];
    place.good(&bits);
    place.bits_per_byte("both");
}

#[test]
fn layers_are_left_out_with_their_part_of_the_history() {
    let place = Place::new();
    let layers = ["--method", "layers", "--layers", "1"];
    place.write("prune", "shorter", &[&layers[..], &DATA].concat());
    let info = place.good(&["info", "--model", "shorter"]);
    assert!(info.contains("1 of width 32"), "{info}");
    assert!(place.bits_per_byte("shorter").is_finite());
    let all = [
        "prune", "--model", "run", "--out", "none", "--method", "layers", "--layers", "2",
    ];
    let refused = "the number of layers to leave out is 2; allowed: at most 1";
    place.bad(&[&all[..], &DATA].concat(), refused);
    let missing = [
        "prune", "--model", "run", "--out", "none", "--method", "layers",
    ];
    place.bad(&[&missing[..], &DATA].concat(), "--layers is needed");
    let both = [&missing[..], &["--layers", "1", "--sparsity", "0.5"], &DATA].concat();
    place.bad(&both, "--sparsity: --method layers leaves out whole layers");
    let other = [
        "prune",
        "--model",
        "run",
        "--out",
        "none",
        "--method",
        "magnitude",
    ];
    place.bad(&other, "--sparsity is needed");
    place.bad(
        &[&other[..], &["--layers", "1"]].concat(),
        "--layers: allowed with --method layers alone",
    );
}

#[test]
fn bad_arguments_are_named_before_anything_is_written() {
    let place = Place::new();
    let quantize = |more: &[&str], expected: &str| {
        let out = ["quantize", "--model", "run", "--out", "out"];
        place.bad(&[&out[..], more].concat(), expected);
        assert!(!place.path("out").exists(), "{more:?}");
    };
    quantize(&["--bits", "3"], "3 bits per weight; allowed are 4 and 8");
    quantize(
        &["--bits", "4", "--group", "48"],
        "groups of 48 weights; allowed are 32, 64 and 128",
    );
    quantize(
        &["--bits", "4"],
        "model.layers.0.self_attn.q_proj: an input width of 32 is not a multiple of the group size, 128",
    );
    quantize(
        &["--bits", "4", "--method", "gptq"],
        "--calibration is needed",
    );
    quantize(
        &["--bits", "4", "--calibration", "train.tokens"],
        "--calibration: --method round looks at weights alone",
    );
    quantize(
        &[
            "--bits",
            "4",
            "--group",
            "32",
            "--method",
            "gptq",
            "--calibration",
            "text.txt",
        ],
        "text.txt",
    );
    quantize(
        &[
            "--bits",
            "4",
            "--method",
            "gptq",
            "--calibration",
            "train.tokens",
            "--tokens",
            "0",
        ],
        "--tokens is 0; allowed: 1 and above",
    );
    let prune = |sparsity: &str| {
        let out = [
            "prune",
            "--model",
            "run",
            "--method",
            "magnitude",
            "--out",
            "out",
        ];
        place.bad(
            &[&out[..], &["--sparsity", sparsity]].concat(),
            "allowed: a fraction above 0",
        );
    };
    for sparsity in [
        "0", "1", "NaN", "-1", "4:2", "2:3", "0:4", "half", "2:4:8", "",
    ] {
        prune(sparsity);
    }
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/file"), "mine").unwrap();
    let full = [
        "quantize", "--model", "run", "--bits", "8", "--group", "32", "--out", "full",
    ];
    place.bad(&full, "full");
    assert_eq!(fs::read_to_string(place.path("full/file")).unwrap(), "mine");
}
