//! Training of encoder-decoders on pairs of source and target.

mod place;

use std::fs;

use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{EncoderDecoder, ModelKind, Source, model_kind};
use iiet_train::{RunConfig, TrainError};
use place::{INTERRUPTED, Place, RUNNING, copy};

/// Pairs whose target is the source with its words in reverse order.
struct Pairs(Place);

impl Pairs {
    fn new() -> Self {
        let place = Place::new();
        let words = ["red", "green", "blue", "one", "two", "three", "up", "down"];
        let word = |i: usize, at: usize| words[(i * 7919 + at * 104_729) / 11 % 61 % words.len()];
        let lines = (0..600).map(|i| {
            let length = 2 + i % 4;
            let source: Vec<&str> = (0..length).map(|at| word(i, at)).collect();
            let target: Vec<&str> = source.iter().rev().copied().collect();
            format!(
                "{}\n",
                serde_json::json!({"in": source.join(" "), "out": target.join(" ")})
            )
        });
        fs::write(place.path("pairs.jsonl"), lines.collect::<String>()).unwrap();
        Self(place)
    }

    /// The settings of a run, before those of the caller.
    fn sets(&self, more: &[&str]) -> Vec<String> {
        let source = format!("data.source={}", self.0.path("pairs.jsonl").display());
        let own = [
            source.as_str(),
            "data.source_field=in",
            "data.target_field=out",
            "model.encoder={n_layers=2, solver={name='iterative_implicit_euler', iterations=2}}",
            "model.solver=explicit_euler",
            "train.batch=0",
            "train.batch_tokens=64",
            "train.label_smoothing=0.1",
            "train.schedule=inverse_sqrt",
        ];
        own.iter()
            .chain(more)
            .map(|set| (*set).to_owned())
            .collect()
    }

    fn config(&self, more: &[&str]) -> Result<RunConfig, TrainError> {
        let sets = self.sets(more);
        self.0
            .config(&sets.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run(&self, name: &str, more: &[&str]) {
        let sets = self.sets(more);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        self.0.run(name, &sets).unwrap();
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path(name).join("model/model.safetensors")).unwrap()
    }
}

#[test]
fn a_model_learns_to_reverse_and_its_directory_loads() {
    let pairs = Pairs::new();
    let sets = [
        "model.d_model=32",
        "train.steps=600",
        "train.lr=1e-2",
        "train.warmup=40",
        "train.eval_every=600",
        "train.checkpoint_every=600",
    ];
    pairs.run("run", &sets);
    let records = pairs.0.records("run");
    let (first, last) = (&records[0], &records[599]);
    // Both layers of the encoder take three evaluations, those of the decoder one.
    assert_eq!(first.evaluations, 2 * 3 + 2);
    assert!(first.terms.contains_key("cross_entropy"));
    assert!(
        first.loss > 4.0 && last.terms["cross_entropy"] < 0.5,
        "{last:?}"
    );
    assert!(last.validation_loss.unwrap() < 0.7, "{last:?}");

    let dir = pairs.0.path("run/model");
    assert_eq!(model_kind(&dir).unwrap(), ModelKind::EncoderDecoder);
    let device = Device::default();
    let model = EncoderDecoder::load(&dir, &device).unwrap();
    assert_eq!(model.sizes().label_smoothing, 0.1);
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json")).unwrap();
    let end = tokenizer.document_end().unwrap();
    assert_eq!(model.sizes().decoder_start_token_id, Some(end));
    let text = fs::read_to_string(pairs.0.path("pairs.jsonl")).unwrap();
    let right = text.lines().take(60).filter(|line| {
        let pair: serde_json::Value = serde_json::from_str(line).unwrap();
        let source = tokenizer.encode(pair["in"].as_str().unwrap()).unwrap();
        let source = [source, vec![end]].concat();
        let found = model.greedy(&Source::of(&[&source], &device), end, 15, &device);
        tokenizer.decode(&found[0]).unwrap() == pair["out"].as_str().unwrap()
    });
    let right = right.count();
    assert!(right >= 48, "{right} of 60");
}

#[test]
fn resuming_is_exact() {
    let pairs = Pairs::new();
    let sets = [
        "train.steps=12",
        "train.accumulation=2",
        "train.checkpoint_every=1",
        "train.keep=100",
        "train.dropout={residual=0.1, attention=0.2, activation=0.3}",
        "train.stages=[{solver='explicit_euler', encoder='explicit_euler', share=0.5}, \
         {solver='explicit_euler', share=0.5}]",
    ];
    pairs.run("whole", &sets);
    let records = pairs.0.records("whole");
    assert_eq!((records[5].evaluations, records[6].evaluations), (4, 8));
    for step in [1, 5, 6, 7, 11] {
        let run = pairs.0.path("part");
        copy(&pairs.0.path("whole"), &run);
        for later in step + 1..=12 {
            fs::remove_dir_all(run.join(format!("checkpoints/step-{later}"))).unwrap();
        }
        let own = pairs.sets(&sets);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        pairs.0.resume("part", &own).unwrap();
        assert_eq!(pairs.0.losses("part"), pairs.0.losses("whole"));
        assert!(
            pairs.weights("part") == pairs.weights("whole"),
            "from {step}"
        );
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn an_interrupted_run_resumes_exactly() {
    let pairs = Pairs::new();
    let sets = pairs.sets(&["train.steps=6"]);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    pairs.0.run("whole", &sets).unwrap();
    let stopped = pairs.0.go("part", &sets, false, &INTERRUPTED).unwrap();
    assert_eq!((stopped.step, stopped.validation), (0, None));
    pairs.0.go("part", &sets, true, &RUNNING).unwrap();
    assert!(pairs.weights("part") == pairs.weights("whole"));
}

#[test]
fn recomputation_and_half_precision_train() {
    let pairs = Pairs::new();
    let dropout = "train.dropout={residual=0.1, attention=0.2, activation=0.3}";
    let run = |name: &str, more: &str| pairs.run(name, &["train.steps=4", dropout, more]);
    run("whole", "train.recompute=none");
    run("again", "train.recompute=layer");
    run("bf16", "train.precision=bf16");
    let [whole, again, bf16] = ["whole", "again", "bf16"].map(|name| pairs.0.records(name));
    for (a, b) in whole.iter().zip(&again) {
        assert!((a.loss - b.loss).abs() < 1e-5, "{a:?} {b:?}");
    }
    for (a, b) in whole.iter().zip(&bf16) {
        assert!((a.loss - b.loss).abs() < 0.02 * a.loss, "{a:?} {b:?}");
        assert_ne!(a.loss, b.loss);
    }
}

#[test]
fn initial_weights_come_from_a_directory_with_another_solver() {
    let pairs = Pairs::new();
    pairs.run("teacher", &["train.steps=4"]);
    let init = format!("train.init={}", pairs.0.path("teacher/model").display());
    let tokenizer = format!(
        "data.tokenizer={}",
        pairs.0.path("teacher/model/tokenizer.json").display()
    );
    let sets = [
        init.as_str(),
        &tokenizer,
        "train.steps=2",
        "model.encoder.solver.iterations=[1, 0]",
    ];
    pairs.run("student", &sets);
    let first = |name: &str| pairs.0.records(name)[0].loss;
    assert!(first("student") < first("teacher") - 0.1);
    let deeper = pairs.config(&[&init, &tokenizer, "model.encoder.n_layers=3"]);
    let error = pairs.0.train(&deeper.unwrap(), "deeper").unwrap_err();
    let expected = "model.encoder.n_layers is 3; allowed: 2, as in train.init";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn configurations_that_do_not_fit_together_are_errors() {
    let pairs = Pairs::new();
    let text = format!("data.source={}", pairs.0.path("corpus").display());
    for (sets, expected) in [
        (
            vec!["model.tie_embeddings=false"],
            "model.tie_embeddings is false; allowed with an encoder: true",
        ),
        (
            vec!["train.batch=4"],
            "train.batch_tokens is 64; allowed: instead of train.batch, not beside it",
        ),
        (
            vec!["train.label_smoothing=1.0"],
            "train.label_smoothing is 1; allowed: 0 up to but not including 1",
        ),
        (
            vec!["model.encoder.solver.iterations=[1]"],
            "encoder: iterations lists 1 layers, the model has 2",
        ),
        (
            vec!["train.stages=[{solver='explicit_euler', encoder='heun', share=1.0}]"],
            "train.stages is a list with the solver \"heun\"",
        ),
        (
            vec!["train.stages=[{solver='explicit_euler', encoder='explicit_euler', share=1.0}]"],
            "the last stage must use the solver of [model.encoder]",
        ),
    ] {
        let error = pairs.config(&sets).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = pairs
        .0
        .config(&[&text, "model.encoder={n_layers=1, solver='explicit_euler'}"]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("data.source is without sources and targets"),
        "{error}"
    );
    let source = format!("data.source={}", pairs.0.path("pairs.jsonl").display());
    let error = pairs
        .0
        .config(&[&source, "data.source_field=in", "data.target_field=out"]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.encoder is not given"), "{error}");
}
