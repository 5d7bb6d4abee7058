//! Generated tasks: pure functions of (seed, index), and two sides that never meet.

use std::collections::HashSet;
use std::sync::Arc;

use iiet_data::{
    Batches, Content, DataConfig, Difficulties, Examples, Group, MixedBatches, Part, SourceSpec,
    TaskExamples, TaskSpec, Validation, prepare_corpus,
};

fn examples(spec: &TaskSpec, part: Part) -> TaskExamples {
    TaskExamples::new(spec.clone(), part, spec.longest()).unwrap()
}

#[test]
fn examples_follow_from_seed_and_index_alone() {
    for spec in TaskSpec::all() {
        let one = examples(&spec, Part::Training);
        let batches = Batches::of(Arc::new(one.clone()), 4, 7).unwrap();
        let sequence: Vec<_> = (0..6).map(|i| batches.get(i).unwrap()).collect();
        for index in [5, 0, 3] {
            let fresh = Batches::of(Arc::new(examples(&spec, Part::Training)), 4, 7).unwrap();
            assert_eq!(fresh.get(index).unwrap(), sequence[index as usize]);
        }
        // Also beyond what a permutation could hold.
        let far = batches.get(u64::MAX / 4).unwrap();
        assert_eq!(far, batches.get(u64::MAX / 4).unwrap());
        let other = Batches::of(Arc::new(one.clone()), 4, 8).unwrap();
        assert_ne!(other.get(0).unwrap(), sequence[0]);
        // Row r of batch i is example 4 i + r.
        let (_, example) = one.example(7, 4 * 3 + 2).unwrap();
        let row = &sequence[3].inputs[2 * one.seq()..][..example.inputs.len()];
        assert_eq!(row, example.inputs);
        // No example comes twice.
        let keys: HashSet<Vec<u32>> = (0..200).map(|i| one.example(7, i).unwrap().1.key).collect();
        assert_eq!(keys.len(), 200);
    }
}

#[test]
fn no_example_is_both_trained_and_validated_on() {
    // Every word of four elements of S3: few enough to see all of both sides.
    let spec = TaskSpec::Group(Group {
        length: Difficulties::One(4),
        ..Group::default()
    });
    let keys = |part: Part, seed: u64, draws: u64| -> HashSet<Vec<u32>> {
        let examples = examples(&spec, part);
        let draw = |index| examples.example(seed, index).unwrap().1.key;
        (0..draws).map(draw).collect()
    };
    let held_out = keys(Part::HeldOut, 0, 4000);
    let mut trained = HashSet::new();
    for seed in 0..4 {
        trained.extend(keys(Part::Training, seed, 10_000));
    }
    assert_eq!(held_out.intersection(&trained).count(), 0);
    // Together they are all the words there are: 6^4, of which about a sixteenth is held out.
    assert_eq!(held_out.len() + trained.len(), 1296);
    assert!((50..120).contains(&held_out.len()), "{}", held_out.len());
    for key in held_out {
        assert_eq!(Part::of(&key), Part::HeldOut);
    }
}

#[test]
fn no_difficulty_of_any_task_meets_the_other_side() {
    for spec in TaskSpec::all() {
        for part in [Part::Training, Part::HeldOut] {
            let examples = examples(&spec, part);
            let mut seen = HashSet::new();
            for index in 0..300 {
                let (difficulty, example) = examples.example(1, index).unwrap();
                assert_eq!(Part::of(&example.key), part);
                assert!(example.weights.contains(&1.0));
                assert_eq!(example.inputs.len(), spec.task().tokens(difficulty));
                seen.insert(difficulty);
            }
            // Every difficulty of the range is drawn.
            assert_eq!(seen, spec.difficulties().iter().collect());
        }
    }
}

#[test]
fn a_task_is_a_corpus_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = DataConfig {
        source: SourceSpec::Task(TaskSpec::named("hops").unwrap()),
        cache: folder.path().join("cache"),
        ..DataConfig::default()
    };
    let corpus = prepare_corpus(&config, &()).unwrap();
    assert!(!config.cache.exists());
    assert!(matches!(corpus.sources[0].content, Content::Task(_)));
    assert_eq!(corpus.tokenizer.vocab_size(), config.expected_vocab_size());
    let batches = MixedBatches::of(&corpus.train(64).unwrap(), 4, 0).unwrap();
    let batch = batches.get(3).unwrap();
    assert!(batch.inputs.iter().all(|id| *id < 6));
    assert!(
        corpus
            .tokenizer
            .decode(&batch.inputs[..8])
            .unwrap()
            .starts_with('>')
    );
    // What is trained and what is validated on has its options' hash.
    let other = DataConfig {
        source: serde_json::from_str(r#"{"task": "hops", "hops": 2}"#).unwrap(),
        ..config.clone()
    };
    assert_ne!(prepare_corpus(&other, &()).unwrap().hash(), corpus.hash());
    assert_eq!(prepare_corpus(&config, &()).unwrap().hash(), corpus.hash());

    let error = corpus.train(63).unwrap_err().to_string();
    assert!(error.contains("model.seq_len = 63"), "{error}");
    let error = iiet_data::prepare(&config, &()).unwrap_err().to_string();
    assert!(error.contains("nothing to prepare"), "{error}");
}

#[test]
fn keys_about_text_are_refused_beside_a_task() {
    let task = DataConfig {
        source: SourceSpec::Task(TaskSpec::named("group").unwrap()),
        ..DataConfig::default()
    };
    task.check().unwrap();
    for (config, expected) in [
        (
            DataConfig {
                vocab_size: 300,
                ..task.clone()
            },
            "data.vocab_size = 300",
        ),
        (
            DataConfig {
                validation: Validation::Fraction(0.1),
                ..task.clone()
            },
            "data.validation = 0.1",
        ),
        (
            DataConfig {
                tokenizer: "t.json".into(),
                ..task.clone()
            },
            "data.tokenizer = \"t.json\"",
        ),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("nothing beside a task"), "{error}");
    }
}
