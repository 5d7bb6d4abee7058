//! Training on generated tasks.

mod place;

use std::fs;

use iiet_data::{Difficulties, TaskSpec};
use place::{INTERRUPTED, Place, names};

/// A very small word problem; `{ .. }` takes the keys about text from the place's configuration.
const GROUP: &str = "data={ source = { task = 'group', length = [4, 8] } }";

#[test]
fn a_run_on_a_task_measures_accuracy_and_no_bits_per_byte() {
    let place = Place::new();
    let sets = [
        GROUP,
        "train.steps=60",
        "train.batch=16",
        "train.eval_tokens=2048",
    ];
    let summary = place.run("run", &sets).unwrap();
    let records = place.records("run");
    let (first, last) = (&records[0], records.last().unwrap());
    // Seven tokens: six elements, all equally likely at first, and the end of a text.
    assert!((first.loss - 7f64.ln()).abs() < 0.2, "{}", first.loss);
    assert!((0.05..0.35).contains(&first.accuracy.unwrap()), "{first:?}");
    assert!(records.iter().all(|record| record.bits_per_byte.is_none()));
    assert_eq!(last.validation_bits_per_byte, None);
    let validation = summary.validation.unwrap();
    assert_eq!(
        (validation.bits_per_byte, last.validation_accuracy),
        (None, validation.accuracy)
    );
    // The first product is the first element, which is learned at once.
    assert!(validation.accuracy.unwrap() > 0.3, "{validation:?}");
    assert!(validation.loss < 1.7);
    // The yardstick is the entropy of the products, almost uniform over six.
    assert!((summary.baselines.unigram_loss - 6f64.ln()).abs() < 0.02);
    assert_eq!(summary.baselines.gzip_bits_per_byte, None);
    // Words of 4 to 8 elements, all of whose targets count.
    let per_row = summary.tokens as f64 / 960.0;
    assert!((5.7..6.3).contains(&per_row), "{per_row}");

    let model = place.path("run/model");
    assert!(names(&model).contains(&"task.json".to_owned()));
    let spec = TaskSpec::read(&model).unwrap().unwrap();
    assert_eq!(spec.difficulties(), Difficulties::Range([4, 8]));
    // The manifest covers it.
    let path = model.join("task.json");
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace('8', "9")).unwrap();
    let device = burn::tensor::Device::default();
    let error = iiet_model::load(&model, &device).unwrap_err().to_string();
    assert!(error.contains("task.json"), "{error}");
    // The configuration names the task alone.
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(!config.contains("vocab_size"), "{config}");
}

#[test]
fn a_resumed_run_on_a_task_continues_to_the_last_bit() {
    let place = Place::new();
    let hops = "data={ source = { task = 'hops', hops = [1, 2], length = 14, alphabet = 3 } }";
    for (name, source) in [("group", GROUP), ("hops", hops)] {
        let sets = [
            source,
            "train.accumulation=2",
            "train.checkpoint_every=4",
            "train.keep=9",
        ];
        place.run(name, &sets).unwrap();
        let whole = place.losses(name);
        let accuracies = |records: Vec<iiet_train::Record>| -> Vec<Option<f64>> {
            let both = |r: &iiet_train::Record| [r.accuracy, r.validation_accuracy];
            records.iter().flat_map(both).collect()
        };
        let before = accuracies(place.records(name));
        let weights = fs::read(place.path(name).join("model/model.safetensors")).unwrap();
        for step in ["step-12", "step-8"] {
            let _ = fs::remove_dir_all(place.path(name).join("checkpoints").join(step));
        }
        place.resume(name, &sets).unwrap();
        assert_eq!(place.losses(name), whole);
        assert_eq!(accuracies(place.records(name)), before);
        assert!(fs::read(place.path(name).join("model/model.safetensors")).unwrap() == weights);

        let cut = format!("{name}-cut");
        place.go(&cut, &sets, false, &INTERRUPTED).unwrap();
        place.resume(&cut, &sets).unwrap();
        assert_eq!(place.losses(&cut), whole);
    }
    let other = GROUP.replace("[4, 8]", "8");
    let error = place.resume("group", &[&other, "train.accumulation=2"]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("data.source.length was [4, 8] and is 8"),
        "{error}"
    );
}

#[test]
fn recomputed_layers_count_the_same_accuracy() {
    let place = Place::new();
    let (kept, again) = ([GROUP], [GROUP, "train.recompute=layer"]);
    place.run("kept", &kept).unwrap();
    place.run("again", &again).unwrap();
    for (kept, again) in place.records("kept").iter().zip(&place.records("again")) {
        let (kept, again) = (kept.accuracy.unwrap(), again.accuracy.unwrap());
        assert!((kept - again).abs() < 0.05, "{kept} and {again}");
    }
}

/// Longer words, from the weights of a model of short ones: the sizes are the model's, and the tokenizer is
/// the task's own.
#[test]
fn a_run_on_a_task_starts_from_another_ones_weights() {
    let place = Place::new();
    place.run("short", &[GROUP]).unwrap();
    let file = place.path("long.toml");
    let text = format!(
        "[data]\nsource = {{ task = 'group', length = [8, 12] }}\n[train]\nsteps = 6\nbatch = 4\nlr = 1e-3\nlog_every = 1\neval_every = 3\ninit = '{}'\n",
        place.path("short").display()
    );
    fs::write(&file, text).unwrap();
    let config = iiet_train::RunConfig::load(&file, &[]).unwrap();
    assert_eq!(
        (config.model.d_model, &*config.data.tokenizer),
        (16, "train")
    );
    place.train(&config, "long").unwrap();
    let (before, after) = (place.records("short"), place.records("long"));
    assert!(after[0].loss < before[0].loss);
}
