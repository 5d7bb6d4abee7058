//! Complete runs of a very small model on a very small corpus.

mod place;

use std::fs;

use burn::tensor::Device;
use iiet_train::{Record, RunConfig, TrainError};
use place::{INTERRUPTED, Place, bytes_below, names};

#[test]
fn a_run_writes_all_documented_files() {
    let place = Place::new();
    let sets = [
        "train.steps=120",
        "train.keep=2",
        "train.sample_every=20",
        "train.sample_prompt=The",
    ];
    let summary = place.run("run", &sets).unwrap();
    // A little less than 120 steps of 4 x 16: the last window of the corpus is short.
    assert_eq!(summary.step, 120);
    assert!(
        (7600..=7680).contains(&summary.tokens),
        "{}",
        summary.tokens
    );

    let records = place.records("run");
    let (first, last) = (&records[0], &records[119]);
    assert_eq!(
        (first.step, last.step, last.tokens),
        (1, 120, summary.tokens)
    );
    assert_eq!(last.evaluations, 4);
    // 300 tokens, initially all equally likely.
    assert!((first.loss - 300f64.ln()).abs() < 0.2, "{}", first.loss);
    assert!(
        last.loss < first.loss - 2.0,
        "{} to {}",
        first.loss,
        last.loss
    );
    let validation = summary.validation.unwrap();
    // Parsing JSON may change the last bit.
    let logged = last.validation_loss.unwrap();
    assert!(
        (logged - validation.loss).abs() < 1e-12,
        "{logged} and {}",
        validation.loss
    );
    assert!(validation.bits_per_byte < summary.baselines.unigram_bits_per_byte);

    let run = place.path("run");
    assert_eq!(names(&run.join("checkpoints")), ["step-114", "step-120"]);
    assert_eq!(
        names(&run.join("model")),
        [
            "config.json",
            "configuration_iiet.py",
            "iiet-manifest.json",
            "model.safetensors",
            "modeling_iiet.py",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let samples = fs::read_to_string(run.join("samples.txt")).unwrap();
    assert!(samples.starts_with("--- step 20\nThe"), "{samples}");
    // The resolved configuration parses back.
    let again = RunConfig::load(&run.join("config.toml"), &[]).unwrap();
    assert_eq!(again, place.config(&sets).unwrap());
    iiet_model::load(&run.join("model"), &Device::default()).unwrap();

    let error = place.run("run", &sets).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
}

#[test]
fn a_run_starts_from_the_weights_of_a_model_with_another_solver() {
    let place = Place::new();
    let euler = "model.solver=explicit_euler";
    place.run("llama", &[euler]).unwrap();
    let init = format!("train.init={}", place.path("llama/model").display());
    let tokenizer = format!(
        "data.tokenizer={}",
        place.path("llama/model/tokenizer.json").display()
    );
    // Without corrections the textbook implicit Euler is the same function: the first loss is that
    // of the model, far below that of random weights.
    let sets = [
        "model.solver=implicit_euler",
        "model.solver.iterations=0",
        init.as_str(),
        tokenizer.as_str(),
    ];
    place.run("implicit", &sets).unwrap();
    let (before, after) = (place.records("llama"), place.records("implicit"));
    assert!(after[0].loss < before[0].loss - 0.5);
    assert!((after[0].loss - before.last().unwrap().loss).abs() < 0.5);

    let wide = [euler, &init, &tokenizer, "model.d_ff=48"];
    let error = place.run("wide", &wide).unwrap_err().to_string();
    assert!(error.contains("model.d_ff is 48; allowed: 32"), "{error}");
    let other = [euler, &init, "data.tokenizer=train", "data.vocab_size=290"];
    let error = place.run("other", &other).unwrap_err().to_string();
    assert!(error.contains("data.tokenizer is different"), "{error}");
}

/// A LLaMA 3 with stretched frequencies, biases and more ids than its tokenizer has tokens: nothing of it is
/// typed again, and only the solver differs on purpose.
#[test]
fn a_run_takes_from_its_first_weights_what_is_not_given() {
    let place = Place::new();
    let sets = [
        "model.solver=explicit_euler",
        "model.rope_scaling={rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16}",
        "model.rope_theta=5e5",
        "model.attention_bias=qkv",
        "model.vocab_size=310",
    ];
    place.run("llama", &sets).unwrap();
    let before = iiet_model::load_config(&place.path("llama/model")).unwrap();
    assert_eq!((before.vocab_size, before.block.rope_theta), (310, 5e5));

    let file = place.path("short.toml");
    let load = |text: &str, sets: &[String]| {
        let text = format!(
            "[data]\nsource = '{}'\ncache = '{}'\n[train]\nsteps = 6\nbatch = 4\nlr = 1e-3\nlog_every = 1\neval_every = 3\n{text}",
            place.path("corpus").display(),
            place.path("cache").display()
        );
        fs::write(&file, text).unwrap();
        RunConfig::load(&file, sets)
    };
    // The run's directory will do for that of its model, in the file as on the command line.
    let init = format!("train.init={}", place.path("llama").display());
    let solver = "[model]\nsolver = { name = 'implicit_euler', iterations = 0 }";
    let config = load(solver, std::slice::from_ref(&init)).unwrap();
    let text = format!("init = '{}'\n{solver}", place.path("llama").display());
    assert_eq!(load(&text, &[]).unwrap(), config);
    let section = &config.model;
    assert_eq!((section.d_model, section.vocab_size), (16, Some(310)));
    assert_eq!(section.rope_scaling, before.block.rope_scaling);
    let tokenizer = place.path("llama/model/tokenizer.json");
    assert_eq!(config.data.tokenizer, tokenizer.display().to_string());

    place.train(&config, "implicit").unwrap();
    let (before, after) = (place.records("llama"), place.records("implicit"));
    assert!((after[0].loss - before.last().unwrap().loss).abs() < 0.5);
    let model = iiet_model::load_config(&place.path("implicit/model")).unwrap();
    assert_eq!(model.block, section.config(0, None).block);

    // What differs without purpose is refused in the file's own words.
    let sets = [init.clone(), "model.attention_bias=all".to_owned()];
    let error = load(solver, &sets).and_then(|config| place.train(&config, "other"));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("model.attention_bias is \"all\"; allowed: \"qkv\", as in train.init"),
        "{error}"
    );
    let sets = [
        init.clone(),
        "model.rope_scaling={rope_type='llama3', factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16}".to_owned(),
    ];
    let error = load(solver, &sets).and_then(|config| place.train(&config, "stretched"));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("model.rope_scaling is ")
            && error.contains("factor = 4.0")
            && !error.contains("Some("),
        "{error}"
    );
    let sets = [
        init.clone(),
        "model.rope_scaling={rope_type='yarn', factor=4.0}".to_owned(),
    ];
    let error = load(solver, &sets).unwrap_err().to_string();
    assert!(
        error.contains("yarn") && error.contains("llama3"),
        "{error}"
    );
    let sets = [init, "model.vocab_size=40".to_owned()];
    let error = load(solver, &sets).and_then(|config| place.train(&config, "few"));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("model.vocab_size is 40; allowed: 300"),
        "{error}"
    );

    // A complete configuration needs the directory no more.
    fs::rename(place.path("llama"), place.path("moved")).unwrap();
    let again = RunConfig::load(&place.path("implicit/config.toml"), &[]).unwrap();
    assert_eq!(again, config);
    let missing = format!("train.init={}", place.path("llama").display());
    let error = load(solver, &[missing]).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn runs_with_the_same_seed_are_bitwise_identical() {
    let place = Place::new();
    place.run("a", &[]).unwrap();
    place.run("b", &[]).unwrap();
    place.run("c", &["train.seed=1"]).unwrap();
    assert_eq!(place.losses("a"), place.losses("b"));
    assert_ne!(place.losses("a"), place.losses("c"));
}

#[test]
fn a_resumed_run_is_bitwise_identical() {
    let place = Place::new();
    for (name, stages) in [
        ("one", "train.stages=[]"),
        // The switch at step 8 comes after the checkpoint.
        (
            "two",
            "train.stages=[{solver='explicit_euler', share=0.67}, {solver='iterative_implicit_euler', share=0.33}]",
        ),
    ] {
        let sets = [stages, "train.accumulation=2"];
        place.run(name, &sets).unwrap();
        let whole = place.losses(name);
        fs::remove_dir_all(place.path(name).join("checkpoints/step-12")).unwrap();
        let summary = place.resume(name, &sets).unwrap();
        assert_eq!(summary.step, 12);
        assert_eq!(place.losses(name), whole, "{name}");
    }
}

#[test]
fn an_interrupt_writes_a_checkpoint() {
    let place = Place::new();
    place.run("whole", &[]).unwrap();
    let summary = place.go("cut", &[], false, &INTERRUPTED).unwrap();
    assert_eq!((summary.step, summary.validation), (0, None));
    place.resume("cut", &[]).unwrap();
    assert_eq!(place.losses("cut"), place.losses("whole"));
}

#[test]
fn resuming_a_complete_run_keeps_its_result() {
    let place = Place::new();
    let first = place.run("run", &[]).unwrap();
    let again = place.resume("run", &[]).unwrap();
    assert_eq!((again.step, again.validation), (12, first.validation));
    assert_eq!(place.records("run").len(), 12);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let whole = place.losses("run");
    let checkpoints = place.path("run").join("checkpoints");
    for file in ["state.json", "optimizer.safetensors", "model.safetensors"] {
        let path = checkpoints.join("step-12").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        place.resume("run", &[]).unwrap();
        assert_eq!(place.losses("run"), whole, "{file}");
    }
    fs::remove_dir_all(&checkpoints).unwrap();
    fs::create_dir(&checkpoints).unwrap();
    let error = place.resume("run", &[]).unwrap_err();
    assert!(
        matches!(error, TrainError::NothingToResume { .. }),
        "{error}"
    );
}

#[test]
fn a_resume_with_another_configuration_is_an_error() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    for (set, key) in [
        ("train.seed=9", "train.seed was 0 and is 9"),
        ("train.batch=2", "train.batch was 4 and is 2"),
        ("model.d_ff=48", "model.d_ff was 32 and is 48"),
        ("data.vocab_size=280", "data.vocab_size was 300 and is 280"),
        ("data.validation=0.2", "the training text was"),
    ] {
        let error = place.resume("run", &[set]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let error = place.resume("run", &["train.steps=8"]).unwrap_err();
    let expected = "train.steps is 8; allowed: at least 12, the run's completed steps";
    assert_eq!(error.to_string(), expected);
    // More steps at another learning rate are allowed.
    let summary = place
        .resume("run", &["train.steps=14", "train.lr=1e-3"])
        .unwrap();
    assert_eq!(summary.step, 14);
    let error = place.resume("elsewhere", &[]).unwrap_err().to_string();
    assert!(error.contains("elsewhere"), "{error}");
}

#[test]
fn accumulation_equals_a_larger_batch() {
    let place = Place::new();
    place.run("whole", &["train.batch=4"]).unwrap();
    place
        .run("parts", &["train.batch=1", "train.accumulation=4"])
        .unwrap();
    for (a, b) in place.records("whole").iter().zip(&place.records("parts")) {
        assert!(
            (a.loss - b.loss).abs() < 1e-4,
            "step {}: {} and {}",
            a.step,
            a.loss,
            b.loss
        );
        assert!(
            (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3,
            "step {}",
            a.step
        );
        assert_eq!(a.tokens, b.tokens);
    }
}

#[test]
fn a_stage_switch_keeps_the_trained_parameters() {
    let place = Place::new();
    let stages = "train.stages=[{solver='explicit_euler', share=0.75}, {solver='iterative_implicit_euler', share=0.25}]";
    place.run("two", &["train.steps=40", stages]).unwrap();
    let records = place.records("two");
    assert_eq!((records[29].evaluations, records[30].evaluations), (2, 4));
    let fresh = records[0].loss;
    assert!(
        records[30].loss < fresh - 0.5,
        "{} after the switch, {fresh} at first",
        records[30].loss
    );
    let (_, config) = iiet_model::load(&place.path("two/model"), &Device::default()).unwrap();
    assert_eq!(
        iiet_ode::Options::name(&config.solver),
        "iterative_implicit_euler"
    );
}

#[test]
fn corrections_come_on_by_stages_without_a_jump_of_the_loss() {
    let place = Place::new();
    let gated = "model.solver={name='iterative_implicit_euler', iterations=3, gate=0}";
    let stages = "train.stages=[{solver={iterations=0}, share=0.5}, {solver={iterations=1}, share=0.25}, {solver={iterations=3}, share=0.25}]";
    place
        .run("grown", &[gated, stages, "train.steps=16"])
        .unwrap();
    let without = "model.solver={name='iterative_implicit_euler', iterations=0, gate=0}";
    place.run("without", &[without, "train.steps=16"]).unwrap();
    let (grown, without) = (place.records("grown"), place.records("without"));
    let evaluations: Vec<usize> = [7, 8, 11, 12].map(|at| grown[at].evaluations).into();
    assert_eq!(evaluations, [2, 4, 4, 8]);
    // The first loss with a correction is still that of the function without, to the last bit.
    let losses = |records: &[Record]| -> Vec<f64> { records.iter().map(|r| r.loss).collect() };
    assert_eq!(losses(&grown)[..9], losses(&without)[..9]);
    // From then on the gates open and the corrections count.
    assert_ne!(losses(&grown)[10..], losses(&without)[10..]);

    // Where no gate is, the function is another one at once.
    let bare = "model.solver={name='iterative_implicit_euler', iterations=3}";
    place
        .run("bare", &[bare, stages, "train.steps=16"])
        .unwrap();
    let bare = place.records("bare");
    assert_eq!(bare[7].loss, without[7].loss);
    assert_ne!(bare[8].loss, without[8].loss);
}

#[test]
fn levers_that_are_off_by_default_train() {
    let place = Place::new();
    let solver = "model.solver={name='iterative_implicit_euler', iterations=2, history='textbook', normalise_first=true, gate=0.5}";
    let sets = [solver, "model.residual_multiplier=0.58", "train.steps=30"];
    place.run("levers", &sets).unwrap();
    let records = place.records("levers");
    let (first, last) = (records[0].loss, records[29].loss);
    assert!(last < first - 0.7, "{first} to {last}");
    let (_, config) = iiet_model::load(&place.path("levers/model"), &Device::default()).unwrap();
    assert_eq!(config.block.residual_multiplier, 0.58);

    let init = format!("train.init={}", place.path("levers/model").display());
    let tokenizer = format!(
        "data.tokenizer={}",
        place.path("levers/model/tokenizer.json").display()
    );
    let other = "model.residual_multiplier=1";
    let error = place.run("other", &[&init, &tokenizer, other]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("model.residual_multiplier is the default; allowed: 0.58"),
        "{error}"
    );
}

#[test]
fn every_solver_trains() {
    let place = Place::new();
    for solver in [
        "explicit_euler",
        "runge_kutta",
        "predictor_corrector",
        "implicit_euler",
        "adams_bashforth",
    ] {
        let set = format!("model.solver={solver}");
        place.run(solver, &[&set, "train.steps=30"]).unwrap();
        let records = place.records(solver);
        let (first, last) = (records[0].loss, records[29].loss);
        assert!(last < first - 0.7, "{solver}: {first} to {last}");
    }
}

#[test]
fn non_finite_values_stop_the_run_on_logged_and_unlogged_steps() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let checkpoints = place.path("run/checkpoints");
    let before = bytes_below(&checkpoints);
    // An update with this learning rate damages the weights irrecoverably: the next step detects
    // it, whether it is logged or not, and no checkpoint is written in between.
    for log_every in ["train.log_every=1", "train.log_every=1000"] {
        let sets = [
            "train.lr=1e30",
            "train.clip=0",
            "train.steps=40",
            "train.checkpoint_every=0",
            "train.eval_every=1000",
            log_every,
        ];
        let error = place.resume("run", &sets).unwrap_err();
        let TrainError::NonFinite {
            step, checkpoint, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!((13..40).contains(step), "{error}");
        assert!(checkpoint.contains("step-12"), "{checkpoint}");
        assert!(bytes_below(&checkpoints) == before, "{error}");
    }
    // With a checkpoint due at that step, the validation loss detects it.
    let sets = [
        "train.lr=1e30",
        "train.clip=0",
        "train.steps=40",
        "train.checkpoint_every=1",
    ];
    let error = place.resume("run", &sets).unwrap_err();
    assert!(
        matches!(error, TrainError::Broken { step: 13, .. }),
        "{error}"
    );
    assert!(bytes_below(&checkpoints) == before, "{error}");
}

#[test]
fn a_model_exceeding_memory_is_an_error_before_the_data_is_read() {
    let place = Place::new();
    let sets = [
        "model.d_model=131072",
        "model.d_ff=524288",
        "model.n_layers=1000",
    ];
    let error = place.run("run", &sets).unwrap_err();
    assert!(
        matches!(error, TrainError::Memory { needed, .. } if needed > 1e6),
        "{error}"
    );
    assert!(!place.path("cache").exists());
    assert!(!place.path("run").exists());
}

#[test]
fn recomputed_layers_give_the_same_training() {
    let place = Place::new();
    for solver in ["explicit_euler", "runge_kutta", "iterative_implicit_euler"] {
        let solver_key = format!("model.solver={solver}");
        let run = |recompute: &str| {
            let name = format!("{solver}-{recompute}");
            let key = format!("train.recompute={recompute}");
            place.run(&name, &[&solver_key, &key]).unwrap();
            name
        };
        let (kept, again) = (run("none"), run("layer"));
        if solver == "iterative_implicit_euler" {
            // The history's gradients are summed in another order.
            for (a, b) in place.records(&kept).iter().zip(&place.records(&again)) {
                assert!((a.loss - b.loss).abs() < 1e-4, "step {}", a.step);
            }
        } else {
            assert_eq!(place.losses(&kept), place.losses(&again), "{solver}");
        }
    }
    let error = place.config(&["train.recompute=all"]).unwrap_err();
    assert!(error.to_string().contains("`none` or `layer`"), "{error}");
}

#[test]
fn corrections_drawn_for_each_step_are_resumed_and_leave_the_model_its_own() {
    let place = Place::new();
    let draws = "train.iterations={draw='uniform', from=0, to=2}";
    let sets = [draws, "train.accumulation=2"];
    place.run("drawn", &sets).unwrap();
    place.run("own", &sets[1..]).unwrap();
    let (drawn, own) = (place.losses("drawn"), place.losses("own"));
    assert_ne!(drawn, own);
    // Where the first steps draw what the solver takes anyway, they are the same.
    let at = iiet_train::DrawnIterations::Uniform { from: 0, to: 2 };
    let other = (1..=12).find(|step| at.at(0, *step) != 1).unwrap() as usize;
    assert_eq!(drawn[..other - 1], own[..other - 1]);
    assert_ne!(drawn[other - 1], own[other - 1]);

    fs::remove_dir_all(place.path("drawn/checkpoints/step-12")).unwrap();
    place.resume("drawn", &sets).unwrap();
    assert_eq!(place.losses("drawn"), drawn);
    let (_, config) = iiet_model::load(&place.path("drawn/model"), &Device::default()).unwrap();
    let own = iiet_ode::Options::iterations(&config.solver).unwrap();
    assert_eq!(own.per_layer(2), [1, 1]);

    let error = place.resume("drawn", &sets[1..]).unwrap_err().to_string();
    assert!(error.contains("train.iterations was"), "{error}");
    for (set, expected) in [
        (
            "train.iterations={draw='uniform', from=3, to=2}",
            "from 3 to 2; allowed: from at most to",
        ),
        (
            "train.iterations={draw='poisson', mean=0, most=2}",
            "a mean of 0",
        ),
        (
            "train.iterations={draw='normal'}",
            "unknown variant `normal`",
        ),
        (
            "train.iterations={draw='poisson', mean=1, most=5000}",
            "5000; allowed: at most 4096",
        ),
    ] {
        let error = place.config(&[set]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let euler = [draws, "model.solver=explicit_euler"];
    let error = place.config(&euler).unwrap_err().to_string();
    assert!(
        error.contains("given with the solver explicit_euler"),
        "{error}"
    );
}
