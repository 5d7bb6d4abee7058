//! Training on completions of prompts.

mod place;

use place::{INTERRUPTED, Place};

fn place() -> Place {
    let place = Place::new();
    let record = |i: usize| {
        // The questions are unpredictable, the answer is predictable.
        let question: String = (0..6)
            .map(|j| char::from(b'a' + ((i * 7919 + j * j * 104_729 + i * j) % 26) as u8))
            .collect();
        format!("{{\"question\": \"{question}?\", \"answer\": \"yes\"}}\n")
    };
    let records: String = (0..200).map(record).collect();
    std::fs::write(place.path("pairs.jsonl"), records).unwrap();
    place
}

#[test]
fn only_completions_are_in_the_loss() {
    let place = place();
    let source = &*format!("data.source={}", place.path("pairs.jsonl").display());
    let sets = [
        source,
        "data.prompt_field=question",
        "data.completion_field=answer",
        "train.steps=60",
    ];
    let summary = place.run("run", &sets).unwrap();
    let last = place.records("run").pop().unwrap();
    // Letters of a question would have a loss of more than three nats each.
    assert!(last.loss < 0.5, "{}", last.loss);
    assert!(summary.validation.unwrap().loss < 0.5);
    // 60 steps of 4 answers: one token or a few, and the end-of-document token.
    let per_row = summary.tokens as f64 / 240.0;
    assert!((2.0..=4.0).contains(&per_row), "{per_row}");

    // An interrupted and resumed run is identical.
    place.go("again", &sets, false, &INTERRUPTED).unwrap();
    place.resume("again", &sets).unwrap();
    assert_eq!(place.losses("again"), place.losses("run"));
}
