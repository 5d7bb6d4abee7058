//! The kinds of input, and the commands that read them.

use std::path::PathBuf;

use super::mutate::{NUMBERS, pick};
use crate::torture::random::Random;
use crate::torture::world::World;

/// Files to damage, and the commands that read them.
pub(super) struct Target {
    /// The name for the report and `--only`.
    pub(super) name: &'static str,
    /// A file or a directory, copied for each case.
    pub(super) from: PathBuf,
    /// Suffixes of the names of the files in the directory that are damaged, one per case.
    pub(super) files: &'static [&'static str],
    /// Arguments; `{}` is replaced by the copy, `{out}` by a new directory beside it.
    pub(super) commands: &'static [&'static [&'static str]],
    /// Whether a manifest covers the files, so that every changed byte must be detected.
    pub(super) covered: bool,
}

const LOGITS: &[&str] = &[
    "logits",
    "--ids",
    "1,2,3",
    "--out",
    "{out}/l.safetensors",
    "--model",
    "{}",
];
const GENERATE: &[&str] = &[
    "generate",
    "--prompt",
    "12 and日",
    "--max-tokens",
    "3",
    "--stop",
    "x",
    "--model",
    "{}",
];
const INFO: &[&str] = &["info", "--model", "{}"];
const SHORT: &[&str] = &[
    "train",
    "--config",
    "{}",
    "--run",
    "{out}/run",
    "--set",
    "train.steps=1",
    "--set",
    "train.batch=1",
    "--set",
    "train.accumulation=1",
    "--set",
    "model.d_model=16",
    "--set",
    "model.d_ff=32",
    "--set",
    "model.n_layers=1",
    "--set",
    "model.n_heads=2",
    "--set",
    "model.seq_len=16",
    "--set",
    "train.eval_tokens=16",
];
const INSPECT_CONFIG: &[&str] = &["data", "inspect", "--config", "{}"];

/// A damaged configuration must not make the run a thousand times longer.
const RESUME: &[&str] = &[
    "train",
    "--resume",
    "--run",
    "{}",
    "--set",
    "train.steps=13",
    "--set",
    "train.batch=4",
    "--set",
    "train.accumulation=1",
    "--set",
    "train.eval_tokens=256",
];

/// `data prepare` with one source.
macro_rules! prepare {
    ($($set:literal),*) => {
        &[&[
            "data", "prepare", "--config", "teacher.toml", "--set", "data.source={}", "--set",
            "data.cache={out}", "--set", "data.vocab_size=270", $("--set", $set),*
        ]]
    };
}

/// `eval` with one task.
macro_rules! eval {
    ($tasks:literal) => {
        &[&[
            "eval",
            "--model",
            "llama",
            "--tasks",
            $tasks,
            "--limit",
            "2",
            "--data",
            "{}",
            "--out",
            "{out}/e.json",
            "--num-fewshot",
            "1",
        ]]
    };
}

/// All targets.
pub(super) fn all(world: &World) -> anyhow::Result<Vec<Target>> {
    let target = |name, from: &str, files, commands| Target {
        name,
        from: world.path(from),
        files,
        commands,
        covered: false,
    };
    let corpus = world.corpus()?;
    Ok(vec![
        target("toml", "teacher.toml", &[""], &[INSPECT_CONFIG, SHORT]),
        target(
            "config",
            "bare",
            &["/config.json"],
            &[INFO, LOGITS, GENERATE],
        ),
        target("weights", "bare", &[".safetensors"], &[LOGITS]),
        target(
            "shards",
            "llama",
            &[".safetensors", ".index.json"],
            &[LOGITS],
        ),
        target(
            "tokenizer",
            "llama",
            &["/tokenizer.json"],
            &[
                GENERATE,
                &[
                    "data",
                    "prepare",
                    "--config",
                    "teacher.toml",
                    "--set",
                    "data.tokenizer={}/tokenizer.json",
                    "--set",
                    "data.cache={out}",
                ],
                &[
                    "eval",
                    "--tasks",
                    "lambada_openai",
                    "--data",
                    "eval",
                    "--limit",
                    "1",
                    "--model",
                    "{}",
                ],
            ],
        ),
        target(
            "chat files",
            "llama",
            &["tokenizer_config.json", "generation_config.json"],
            &[GENERATE],
        ),
        Target {
            covered: true,
            ..target(
                "manifest",
                "teacher/model",
                &[
                    "manifest.json",
                    "/config.json",
                    ".safetensors",
                    "tokenizer.json",
                ],
                &[LOGITS, GENERATE],
            )
        },
        target(
            "checkpoint",
            "teacher",
            &[".json", ".toml", ".safetensors"],
            &[RESUME],
        ),
        target("metrics", "teacher", &["metrics.jsonl"], &[RESUME]),
        target("text", "text.txt", &[""], prepare!()),
        target("jsonl", "rows.jsonl", &[""], prepare!()),
        target("gz", "rows.jsonl.gz", &[""], prepare!()),
        target("zst", "rows.jsonl.zst", &[""], prepare!()),
        target("csv", "rows.csv", &[""], prepare!()),
        target("json", "rows.json", &[""], prepare!()),
        target(
            "parquet",
            "rows.parquet",
            &[""],
            prepare!(
                "data.text_field=question",
                "data.on_error=skip",
                "data.validation=text.txt"
            ),
        ),
        Target {
            from: corpus,
            ..target(
                "tokens",
                "",
                &[".tokens", ".json"],
                &[
                    &["data", "inspect", "{}"],
                    &[
                        "influence",
                        "--model",
                        "teacher/model",
                        "--tokens",
                        "64",
                        "--data",
                        "{}",
                    ],
                ],
            )
        },
        target(
            "prompts",
            "prompts.txt",
            &[""],
            &[&[
                "generate",
                "--model",
                "teacher/model",
                "--max-tokens",
                "2",
                "--batch",
                "{}",
            ]],
        ),
        target(
            "prompts as JSON",
            "prompts.jsonl",
            &[""],
            &[&[
                "generate",
                "--model",
                "teacher/model",
                "--max-tokens",
                "2",
                "--batch",
                "{}",
            ]],
        ),
        target("arc", "eval", &["arc_easy/test.jsonl"], eval!("arc_easy")),
        target("piqa", "eval", &["piqa/validation.jsonl"], eval!("piqa")),
        target(
            "lambada",
            "eval",
            &["lambada_openai/test.jsonl"],
            eval!("lambada_openai"),
        ),
        target(
            "wikitext",
            "eval",
            &["wikitext/test.jsonl"],
            eval!("wikitext"),
        ),
        target(
            "score",
            "prompts.txt",
            &[""],
            &[&[
                "score",
                "--hypotheses",
                "{}",
                "--references",
                "prompts.txt",
                "--confidence",
                "--samples",
                "20",
            ]],
        ),
        target("sweep", "sweep", &["sweep.jsonl"], &[TABLE]),
        target("eval parquet", "eval-parquet", &[".parquet"], ARC),
        target("eval arrow", "eval-arrow", &[".arrow"], ARC),
    ])
}

const TABLE: &[&str] = &[
    "sweep",
    "--table",
    "{}/sweep.jsonl",
    "--picture",
    "{out}/p.svg",
];

/// Generated tasks; `N` is replaced by a number.
const TASKS: [&str; 8] = [
    "{ task = 'group', group = 'S3', length = N }",
    "{ task = 'hops', hops = N, length = 14, alphabet = 4 }",
    "{ task = 'hops', hops = 1, length = N, alphabet = 4 }",
    "{ task = 'hops', hops = 1, length = 14, alphabet = N }",
    "{ task = 'addition', terms = N, digits = 1 }",
    "{ task = 'addition', terms = 2, digits = N }",
    "{ task = 'pointers', hops = N, nodes = 4 }",
    "{ task = 'pointers', hops = 1, nodes = N }",
];

const ARC: &[&[&str]] = &[&[
    "eval",
    "--model",
    "llama",
    "--tasks",
    "arc_challenge",
    "--data",
    "{}",
    "--out",
    "{out}/e.json",
]];

/// A command with extreme numbers; `{out}` as above.
pub(super) fn arguments(random: &mut Random) -> Vec<String> {
    let number = pick(NUMBERS, random);
    let list = format!("{number},{},1", pick(NUMBERS, random));
    let either = match random.below(3) {
        0 => list.as_str(),
        _ => number,
    };
    let config_keys = [
        "model.d_model",
        "model.d_ff",
        "model.n_layers",
        "model.n_heads",
        "model.n_kv_heads",
        "model.seq_len",
        "model.solver.iterations",
        "model.solver.tolerance",
        "model.solver.backprop",
        "model.solver.anderson",
        "model.solver.gate",
        "model.residual_multiplier",
        "model.initializer_range",
        "model.rope_theta",
        "data.vocab_size",
        "data.validation",
        "train.steps",
        "train.batch",
        "train.batch_tokens",
        "train.accumulation",
        "train.label_smoothing",
        "train.dropout.residual",
        "train.dropout.attention",
        "train.dropout.activation",
    ];
    let train_keys = [
        "train.lr",
        "train.min_lr",
        "train.warmup",
        "train.weight_decay",
        "train.clip",
        "train.seed",
        "train.log_every",
        "train.eval_every",
        "train.eval_tokens",
        "train.sample_every",
        "train.checkpoint_every",
        "train.keep",
        "train.beta1",
        "train.beta2",
        "train.eps",
        "train.iterated_lr",
        "model.solver.tolerance",
        "model.solver.backprop",
        "model.solver.anderson",
        "model.solver.gate",
        "model.initializer_range",
        "model.rope_theta",
    ];
    let model = "teacher/model";
    let words: Vec<String> = match random.below(10) {
        0 => {
            let options = [
                "--max-tokens",
                "--top-k",
                "--top-p",
                "--min-p",
                "--temperature",
                "--repetition-penalty",
                "--seed",
                "--iterations",
                "--tolerance",
            ];
            let option = pick(&options, random);
            words(&[
                "generate",
                "--model",
                model,
                "--prompt",
                "a",
                &format!("{option}={number}"),
            ])
        }
        1 => words(&[
            "logits",
            "--model",
            model,
            "--out",
            "{out}/l.safetensors",
            &format!("--ids={either}"),
        ]),
        2 => words(&[
            "convert",
            "--model",
            model,
            "--solver",
            "implicit_euler",
            "--out",
            "{out}/m",
            "--set",
            &format!("iterations={either}"),
        ]),
        3 => {
            let option = pick(&["--batch", "--tokens"], random);
            let corpus = "{corpus}";
            words(&[
                "influence",
                "--model",
                model,
                "--data",
                corpus,
                &format!("{option}={number}"),
            ])
        }
        4 => {
            let option = pick(&["--limit", "--num-fewshot"], random);
            words(&[
                "eval",
                "--model",
                model,
                "--tasks",
                "arc_easy",
                "--data",
                "eval",
                &format!("{option}={number}"),
            ])
        }
        5 => {
            let option = pick(&["--threshold", "--evaluations", "--schedule"], random);
            words(&[
                "distill",
                "--teacher",
                model,
                "--config",
                "student.toml",
                "--run",
                "{out}/run",
                "--set",
                "train.steps=1",
                &format!("{option}={either}"),
            ])
        }
        6 => {
            let source = pick(&TASKS, random).replace('N', number);
            let set = format!("data.source={source}");
            let mut words = words(&SHORT[..3]);
            words[2] = "teacher.toml".to_owned();
            words.extend(SHORT[3..].iter().map(|word| (*word).to_owned()));
            words.extend(["--set".to_owned(), set]);
            words
        }
        7 => {
            let grid = format!("train.lr={either}");
            words(&[
                "sweep",
                "--config",
                "teacher.toml",
                "--budget=1",
                "--out",
                "{out}/sweep",
                "--grid",
                &grid,
                &format!("--jobs={number}"),
            ])
        }
        8 => {
            let set = format!("{}={number}", pick(&config_keys, random));
            words(&["data", "inspect", "--config", "teacher.toml", "--set", &set])
        }
        _ => {
            let set = format!("{}={number}", pick(&train_keys, random));
            words(&[
                "train",
                "--config",
                "teacher.toml",
                "--run",
                "{out}/run",
                "--set",
                "train.steps=2",
                "--set",
                &set,
            ])
        }
    };
    words
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
