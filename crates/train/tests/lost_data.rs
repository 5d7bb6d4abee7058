//! A corpus that is damaged while it is being read.

mod place;

use std::fs;
use std::thread;
use std::time::Duration;

use iiet_train::TrainError;
use place::{Place, names};

#[test]
fn a_truncated_token_file_ends_the_run_with_a_checkpoint() {
    let place = Place::new();
    let sets = [
        "train.steps=1000000",
        "train.eval_every=1000000",
        "train.checkpoint_every=0",
    ];
    let error = thread::scope(|scope| {
        let run = scope.spawn(|| place.run("run", &sets).unwrap_err());
        let metrics = place.path("run").join("metrics.jsonl");
        let lines = || {
            fs::read_to_string(&metrics)
                .unwrap_or_default()
                .lines()
                .count()
        };
        while lines() < 5 && !run.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let cache = place.path("cache");
        for name in names(&cache) {
            let tokens = cache.join(name).join("train.tokens");
            if tokens.exists() {
                fs::File::options()
                    .write(true)
                    .open(tokens)
                    .unwrap()
                    .set_len(1000)
                    .unwrap();
            }
        }
        run.join().unwrap()
    });
    let TrainError::DataLost { step, .. } = &error else {
        panic!("{error}");
    };
    // The last completed step has been saved.
    let saved = format!("step-{}", step - 1);
    assert_eq!(
        names(&place.path("run").join("checkpoints")),
        std::slice::from_ref(&saved)
    );
    let said = error.to_string();
    assert!(
        said.contains("train.tokens") && said.contains(&saved),
        "{said}"
    );

    // The corpus is prepared again, and the run continues.
    let more = format!("train.steps={}", step + 5);
    let again = place.resume("run", &[&more, sets[1], sets[2]]);
    assert!(again.is_ok(), "{}", again.unwrap_err());
}
