//! Reports on small models: what they say of themselves, of each other, and of what cannot be compared.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_eval::report::{
    ModelReport, Report, ReportSettings, Sides, TaskQuality, TokenCost, report, save,
};
use iiet_eval::{EvalError, ModelScorer, Settings, TokenScorer, prepare, task};
use iiet_model::{ModelConfig, SaveOptions};
use iiet_ode::{IterationSchedule, Options, SolverConfig};
use iiet_text::TextTokenizer;

fn tests(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(part)
}

fn settings(tasks: &[&str]) -> ReportSettings {
    ReportSettings {
        tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
        evaluation: Settings {
            data: Some(tests("harness/data")),
            ..Settings::default()
        },
        host_memory: true,
    }
}

/// The small LLaMA, changed and written to a folder of its own with its tokenizer.
fn variant(folder: &Path, name: &str, change: impl FnOnce(&mut ModelConfig)) -> PathBuf {
    let device = Device::flex();
    let original = tests("models/bos");
    let (model, mut config) = iiet_model::load(&original, &device).unwrap();
    change(&mut config);
    let model = model.with_config(&config, 1, &device).unwrap();
    let path = folder.join(name);
    iiet_model::save(&model, &path, &SaveOptions::default()).unwrap();
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        std::fs::copy(original.join(file), path.join(file)).unwrap();
    }
    path
}

fn iterated(r: usize) -> impl FnOnce(&mut ModelConfig) {
    move |config| {
        let solver = SolverConfig::named("implicit_euler").unwrap();
        config.solver = solver.with_iterations(IterationSchedule::Uniform(r));
    }
}

/// With room for the longest answers of the small data sets.
fn roomy(r: usize) -> impl FnOnce(&mut ModelConfig) {
    move |config| {
        iterated(r)(config);
        config.seq_len = 128;
    }
}

fn per_token(model: &ModelReport) -> &TokenCost {
    match &model.cost.tokens {
        Sides::One(cost) => cost,
        sides => panic!("{sides:?}"),
    }
}

fn made(models: &[PathBuf], settings: &ReportSettings) -> Report {
    report(models, settings, &Device::flex(), &|_| Box::new(())).unwrap()
}

fn failed(models: &[PathBuf], settings: &ReportSettings) -> String {
    let error: EvalError =
        report(models, settings, &Device::flex(), &|_| Box::new(())).unwrap_err();
    error.to_string()
}

#[test]
fn a_model_beside_itself_retains_everything() {
    let folder = tempfile::tempdir().unwrap();
    // The same function with another name: no corrections.
    let same = variant(folder.path(), "same/model", iterated(0));
    let original = tests("models/bos");
    let models = [original.clone(), same, original];
    let report = made(&models, &settings(&["wikitext", "arc_easy", "sciq"]));
    let names: Vec<&str> = report
        .models
        .iter()
        .map(|model| model.name.as_str())
        .collect();
    assert_eq!(names, ["bos", "same", "bos (2)"]);
    for model in &report.models {
        let quality = &model.quality;
        let certain = |estimate: Option<iiet_eval::report::Estimate>, value: f64| {
            let estimate = estimate.unwrap();
            assert_eq!(estimate.value.to_bits(), value.to_bits(), "{}", model.name);
            assert_eq!(estimate.standard_error, Some(0.0), "{}", model.name);
        };
        assert!(quality.accuracy.unwrap().value > 0.0);
        certain(quality.retention, 1.0);
        certain(quality.accuracy_difference, 0.0);
        certain(quality.bits_per_byte_difference, 0.0);
        for task in quality.tasks.iter().filter(|task| task.is_accuracy()) {
            certain(task.retention, 1.0);
        }
        assert_eq!(per_token(model).share_of_evaluations, 1.0);
    }
    assert_eq!(report.models[0].speed.decoding_ratio, 1.0);
    assert_eq!(report.models[0].speed.rounds.len(), report.workload.rounds);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
}

#[test]
fn figures_are_those_of_eval_and_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = variant(folder.path(), "teacher", roomy(3));
    let student = variant(folder.path(), "student", roomy(1));
    let names = ["hellaswag", "wikitext", "lambada_openai", "sciq"];
    let report = made(&[teacher.clone(), student.clone()], &settings(&names));

    let device = Device::flex();
    for (path, model) in [&teacher, &student].into_iter().zip(&report.models) {
        let (language_model, config) = iiet_model::load(path, &device).unwrap();
        let tokenizer = TextTokenizer::open(path, config.vocab_size).unwrap();
        let scorer = ModelScorer::new(language_model, device.clone());
        let scorer = TokenScorer::new(scorer, tokenizer);
        for (name, found) in names.iter().zip(&model.quality.tasks) {
            let prepared = prepare(task(name).unwrap(), &settings(&names).evaluation).unwrap();
            let evaluated = prepared.evaluate(&scorer, &()).unwrap();
            let named = evaluated
                .metrics
                .iter()
                .find(|metric| metric.name == found.metric);
            assert_eq!(found.estimate.value, named.unwrap().value, "{name}");
            assert_eq!(found.items, prepared.items.len(), "{name}");
            assert_eq!(found.metrics.len(), evaluated.metrics.len(), "{name}");
        }
        let metrics: Vec<&str> = model
            .quality
            .tasks
            .iter()
            .map(|task| &*task.metric)
            .collect();
        assert_eq!(metrics, ["acc_norm", "bits_per_byte", "acc", "acc"]);
        let chances: Vec<Option<f64>> =
            model.quality.tasks.iter().map(|task| task.chance).collect();
        assert_eq!(chances, [Some(0.25), None, None, Some(0.25)]);
    }

    let [teacher, student] = &report.models[..] else {
        panic!("two models");
    };
    // Two layers of 1 + r evaluations.
    let [of_teacher, of_student] = [teacher, student].map(per_token);
    assert_eq!((of_teacher.evaluations, of_student.evaluations), (8, 4));
    assert_eq!(of_teacher.evaluations_by_layer, [4, 4]);
    let Sides::One(stack) = &student.stacks else {
        panic!("{:?}", student.stacks);
    };
    assert_eq!(stack.iterations, Some(vec![1, 1]));
    assert_eq!(of_student.share_of_evaluations, 0.5);
    assert!(student.cost.forward_flops() < teacher.cost.forward_flops());
    assert_eq!(student.cost.parameters, teacher.cost.parameters);

    // Of the mean over the tasks, and of each task.
    let accuracies = |tasks: &[TaskQuality]| -> Vec<f64> {
        let tasks = tasks.iter().filter(|task| task.is_accuracy());
        tasks.map(|task| task.estimate.value).collect()
    };
    let (x, y) = (
        accuracies(&student.quality.tasks),
        accuracies(&teacher.quality.tasks),
    );
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let quality = &student.quality;
    assert!((quality.accuracy.unwrap().value - mean(&x)).abs() < 1e-12);
    assert!((quality.retention.unwrap().value - mean(&x) / mean(&y)).abs() < 1e-12);
    let difference =
        quality.bits_per_byte.unwrap().value - teacher.quality.bits_per_byte.unwrap().value;
    assert!((quality.bits_per_byte_difference.unwrap().value - difference).abs() < 1e-9);
    assert!(quality.bits_per_byte.unwrap().standard_error.unwrap() > 0.0);
    // Nobody is asked for speed, only for figures that are speeds: 96 tokens read, 32 decoded.
    assert_eq!(
        (
            report.workload.prompt_tokens,
            report.workload.decoded_tokens
        ),
        (96, 32)
    );
    for round in &student.speed.rounds {
        assert!(round.decoding.is_finite() && round.decoding > 0.0);
        assert!(round.prefill.is_finite() && round.prefill > 0.0);
    }
}

#[test]
fn models_that_differ_otherwise_are_compared_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let short = variant(folder.path(), "short", |config| config.seq_len = 16);
    let mut settings = settings(&["wikitext"]);
    settings.evaluation.limit = Some(2);
    let report = made(
        &[tests("models/bos"), tests("models/plain"), short],
        &settings,
    );
    assert_eq!(
        (
            report.workload.prompt_tokens,
            report.workload.decoded_tokens
        ),
        (12, 4)
    );
    for (note, expected) in report.notes.iter().zip([
        "The tokenizers differ",
        "The contexts differ",
        "The first 2 documents",
    ]) {
        assert!(note.starts_with(expected), "{note}");
    }
    assert_eq!(report.notes.len(), 3);
    assert_eq!((report.tasks[0].documents, report.tasks[0].used), (4, 2));
    let bytes_per_token = |at: usize| report.models[at].quality.bytes_per_token.unwrap();
    assert_ne!(bytes_per_token(0), bytes_per_token(1));
    assert!(report.models[0].quality.accuracy.is_none());
    assert!(report.models[1].quality.bits_per_byte_difference.is_some());

    let out = folder.path().join("report.json");
    save(&report, &out).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(json["models"][2]["context"], 16);
    assert_eq!(
        json["models"][0]["quality"]["retention"],
        serde_json::Value::Null
    );
    let error = save(&report, &folder.path().join("missing/report.json")).unwrap_err();
    assert!(error.to_string().contains("missing/report.json"), "{error}");
}

#[test]
fn mistakes_are_found_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let good = tests("models/bos");
    let missing = folder.path().join("missing");
    let of = |tasks: &[&str]| settings(tasks);
    let sciq = of(&["sciq"]);
    for (models, settings, expected) in [
        (vec![], &sciq, "no model is named"),
        (vec![good.clone()], &of(&[]), "no task is named"),
        (vec![good.clone(), missing], &sciq, "missing/config.json"),
        (
            vec![good.clone()],
            &of(&["sciq", "sciq"]),
            "the task sciq is named twice",
        ),
        (
            vec![good.clone()],
            &of(&["arc_easy", "scie"]),
            "no task is called \"scie\"",
        ),
    ] {
        let error = failed(&models, settings);
        assert!(error.contains(expected), "{error}");
    }

    // A model without a tokenizer, one with another's, one without room to decode in.
    let bare = variant(folder.path(), "bare", |_| {});
    std::fs::remove_file(bare.join("tokenizer.json")).unwrap();
    assert!(failed(&[good.clone(), bare], &sciq).contains("bare/tokenizer.json"));
    let narrow = variant(folder.path(), "narrow", |config| {
        config.vocab_size = 16;
        (config.bos_token_id, config.eos_token_ids) = (Some(0), vec![1]);
    });
    let error = failed(&[good.clone(), narrow], &sciq);
    assert!(
        error.contains("narrow/tokenizer.json: token ids up to"),
        "{error}"
    );
    let tiny = variant(folder.path(), "tiny", |config| config.seq_len = 1);
    let error = failed(&[good.clone(), tiny], &sciq);
    assert!(
        error.contains("tiny: the context is 1 tokens; allowed: 2 and above"),
        "{error}"
    );

    // What only the asking shows says whom and what was asked: no answer fits the context.
    let long = settings_with_piqa(folder.path(), 1);
    let error = failed(&[good], &long);
    assert!(
        error.starts_with("bos, piqa: the continuation has"),
        "{error}"
    );
}

/// One question whose first answer is longer than 32 tokens and shorter than 128, and others to make
/// as many as `rows`.
fn settings_with_piqa(folder: &Path, rows: usize) -> ReportSettings {
    let question = |first: &str| {
        let row = serde_json::json!({"goal": "a", "sol1": first, "sol2": "b", "label": 1});
        format!("{row}\n")
    };
    let data = folder.join(format!("data-{rows}"));
    std::fs::create_dir_all(data.join("piqa")).unwrap();
    let text = question(&"zq".repeat(40)) + &question("c").repeat(rows - 1);
    std::fs::write(data.join("piqa/validation.jsonl"), text).unwrap();
    let mut settings = settings(&["piqa"]);
    settings.evaluation.data = Some(data);
    settings
}

#[test]
fn items_that_one_model_cannot_answer_are_left_out_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let roomy = variant(folder.path(), "roomy", roomy(0));
    let models = [roomy, tests("models/bos")];
    let report = made(&models, &settings_with_piqa(folder.path(), 4));
    for model in &report.models {
        assert_eq!(model.quality.tasks[0].items, 3, "{}", model.name);
        assert!(model.quality.tasks[0].difference.is_some());
    }
    let note = report.notes.iter().find(|note| note.contains("left out"));
    let note = note.unwrap();
    assert!(
        note.starts_with("piqa: 1 of 4 items are left out") && note.contains("item 0"),
        "{note}"
    );
}
