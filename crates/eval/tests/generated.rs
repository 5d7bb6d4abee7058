//! Generated tasks asked of a scorer that knows the answers up to a difficulty.

use std::collections::HashMap;

use iiet_data::{GroupName, Part, TaskSpec};
use iiet_eval::{
    AskedGenerated, Continuation, EvalError, Generation, PER_DIFFICULTY, Progress, RollingScore,
    Scored, Scorer, Settings, Targets, Unscorable, compare, prepare, task,
};

/// Multiplies words of at most so many elements of S3, and takes longer ones for the identity.
struct Multiplies(usize);

impl Scorer for Multiplies {
    fn log_likelihood(
        &self,
        _: &[Continuation],
        _: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
        Ok(Vec::new())
    }

    fn log_likelihood_rolling(
        &self,
        _: &[String],
        _: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError> {
        Ok(Vec::new())
    }

    fn targets(
        &self,
        requests: &[Targets],
        _: &dyn Progress,
    ) -> Result<Vec<Vec<Scored>>, EvalError> {
        let group = GroupName::S3.group();
        let numbers: HashMap<String, u32> = (0..6).map(|g| (group.symbol(g), g)).collect();
        let answer = |request: &Targets| {
            let elements = request.inputs.iter().map(|symbol| numbers[symbol]);
            let product = match request.inputs.len() <= self.0 {
                true => elements.fold(0, |product, g| group.product(product, g)),
                false => 0,
            };
            let [(place, wanted)] = &request.wanted[..] else {
                panic!("the product of the whole word alone decides");
            };
            assert_eq!(place + 1, request.inputs.len());
            vec![Scored {
                log_likelihood: 0.0,
                is_greedy: group.symbol(product) == *wanted,
            }]
        };
        Ok(requests.iter().map(answer).collect())
    }

    fn generate_until(&self, _: &[Generation], _: &dyn Progress) -> Result<Vec<String>, EvalError> {
        Ok(Vec::new())
    }
}

fn settings(spec: TaskSpec, limit: Option<usize>) -> Settings {
    Settings {
        limit,
        num_fewshot: 2,
        generated: vec![AskedGenerated::new(spec).unwrap()],
        ..Settings::default()
    }
}

#[test]
fn accuracy_falls_where_the_scorer_gives_up() {
    let spec = TaskSpec::named("group").unwrap();
    let settings = settings(spec, None);
    let prepared = prepare(task("group").unwrap(), &settings).unwrap();
    assert_eq!(
        (prepared.num_fewshot, prepared.original),
        (0, 8 * PER_DIFFICULTY)
    );
    let knows = prepared.evaluate(&Multiplies(24), &()).unwrap();
    let value = |name: &str| {
        let metric = knows.metrics.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap();
        (metric.value, metric.standard_error)
    };
    for solved in ["acc@4", "acc@8", "acc@16", "acc@24"] {
        assert_eq!(value(solved), (1.0, Some(0.0)));
    }
    for guessed in ["acc@32", "acc@48", "acc@64"] {
        // Right by chance for one in six: sqrt(5 / 36 / 512) is 0.0165.
        let (value, error) = value(guessed);
        assert!((value - 1.0 / 6.0).abs() < 0.066, "{value}");
        assert!((error.unwrap() - 0.0165).abs() < 0.002, "{error:?}");
    }
    assert_eq!(value("solved_90"), (24.0, None));

    let less = prepared.evaluate(&Multiplies(8), &()).unwrap();
    let differences = compare("group", &less, &knows).unwrap();
    let of = |name: &str| differences.iter().find(|d| d.metric == name).unwrap();
    assert_eq!(of("acc@8").difference.value, 0.0);
    assert!(of("acc@24").difference.value > 0.7);
    assert_eq!(of("solved_90").difference.value, 16.0);
}

#[test]
fn items_are_held_out_and_the_first_have_all_difficulties() {
    for spec in TaskSpec::all() {
        let name = spec.name();
        let settings = settings(spec.clone(), Some(30));
        let asked = settings.generated[0].clone();
        let prepared = prepare(task(name).unwrap(), &settings).unwrap();
        let again = prepare(task(name).unwrap(), &settings).unwrap();
        assert_eq!(prepared.documents, again.documents);
        assert_eq!(prepared.documents.len(), 30);
        let difficulty = |row: usize| {
            let field = prepared.documents[row].field("difficulty").unwrap();
            field.as_u64().unwrap() as usize
        };
        let first: Vec<usize> = (0..asked.difficulties.len()).map(difficulty).collect();
        assert_eq!(first, asked.difficulties);
        assert!(*first.last().unwrap() > spec.difficulties().to());
    }
    // A word is its own key.
    let settings = settings(TaskSpec::named("group").unwrap(), Some(70));
    let prepared = prepare(task("group").unwrap(), &settings).unwrap();
    let group = GroupName::S3.group();
    let numbers: HashMap<String, u32> = (0..6).map(|g| (group.symbol(g), g)).collect();
    for document in &prepared.documents {
        let word = document.texts("inputs").unwrap();
        let word: Vec<u32> = word.into_iter().map(|symbol| numbers[symbol]).collect();
        assert_eq!(Part::of(&word), Part::HeldOut);
    }
}

#[test]
fn a_scorer_without_symbols_and_settings_without_options_are_refused() {
    struct Text;
    impl Scorer for Text {
        fn log_likelihood(
            &self,
            _: &[Continuation],
            _: &dyn Progress,
        ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
            Ok(Vec::new())
        }
        fn log_likelihood_rolling(
            &self,
            _: &[String],
            _: &dyn Progress,
        ) -> Result<Vec<RollingScore>, EvalError> {
            Ok(Vec::new())
        }
        fn generate_until(
            &self,
            _: &[Generation],
            _: &dyn Progress,
        ) -> Result<Vec<String>, EvalError> {
            Ok(Vec::new())
        }
    }
    let mut settings = settings(TaskSpec::named("hops").unwrap(), Some(4));
    let hops = task("hops").unwrap();
    let error = prepare(hops, &settings).unwrap().evaluate(&Text, &());
    assert!(error.unwrap_err().to_string().contains("no token \">\""));
    settings.generated.clear();
    let error = prepare(hops, &settings).unwrap_err();
    assert!(matches!(error, EvalError::NotAsked { .. }), "{error}");
}
