//! Tasks of sources and targets: their data, their scores, and what is refused.

use std::fs;

use iiet_eval::{
    EvalError, Prepared, Progress, RollingScore, Settings, Split, TargetDecoder, Unscorable,
    Values, Verdict, compare, prepare, task,
};
use iiet_text::BeamSearch;
use serde_json::json;
use tempfile::TempDir;

/// Answers each source with a text of its own; those that are longer than 40 bytes it cannot read.
struct Says(Vec<(&'static str, &'static str)>);

impl TargetDecoder for Says {
    fn best_targets(
        &self,
        sources: &[String],
        search: &BeamSearch,
        _: &dyn Progress,
    ) -> Result<Vec<Result<String, Unscorable>>, EvalError> {
        assert_eq!(search.beam, 4);
        let answer = |source: &String| match source.len() > 40 {
            true => Err(Unscorable {
                what: "the source",
                tokens: source.len(),
                allowed: "1 to 40".into(),
                context: source.clone(),
                continuation: String::new(),
            }),
            false => {
                let found = self.0.iter().find(|(asked, _)| asked == source);
                Ok(found.map_or("", |(_, answer)| answer).to_owned())
            }
        };
        Ok(sources.iter().map(answer).collect())
    }

    /// A nat for each byte.
    fn target_scores(
        &self,
        pairs: &[(&str, &str)],
        _: &dyn Progress,
    ) -> Result<Vec<Result<RollingScore, Unscorable>>, EvalError> {
        let score = |(source, target): &(&str, &str)| match target.len() > 40 {
            true => Err(Unscorable {
                what: "the reference",
                tokens: target.len(),
                allowed: "1 to 40".into(),
                context: (*source).to_owned(),
                continuation: String::new(),
            }),
            false => Ok(RollingScore {
                log_likelihood: -(target.len() as f64),
                tokens: 2,
            }),
        };
        Ok(pairs.iter().map(score).collect())
    }
}

fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn settings(folder: &TempDir) -> Settings {
    Settings {
        data: Some(folder.path().to_owned()),
        ..Settings::default()
    }
}

fn prepared(name: &str, folder: &TempDir) -> Result<Prepared, EvalError> {
    prepare(task(name)?, &settings(folder))
}

/// One row a line.
fn rows(rows: &[serde_json::Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

const TWO: [(&str, &str, &str); 2] = [
    (
        "Der Hund biss den Mann.",
        "The dog bit the man.",
        "The dog bit the man.",
    ),
    (
        "Es war nicht unerwartet.",
        "It was not unexpected.",
        "No one was surprised.",
    ),
];

fn two() -> TempDir {
    let pairs = TWO.map(|(source, _, target)| json!({"source": source, "target": target}));
    folder(&[("translation/test.jsonl", rows(&pairs))])
}

fn says() -> Says {
    Says(TWO.map(|(source, answer, _)| (source, answer)).to_vec())
}

#[test]
fn translations_have_the_scores_of_sacrebleu_with_their_signatures() {
    let done = prepared("translation", &two())
        .unwrap()
        .decode(&says(), &());
    let done = done.unwrap();
    let names: Vec<&str> = done.metrics.iter().map(|metric| &*metric.name).collect();
    assert_eq!(names, ["BLEU", "chrF2"]);
    // sacrebleu.corpus_bleu
    assert_eq!(format!("{:.2}", done.metrics[0].value), "61.01");
    for metric in &done.metrics {
        let score = metric.text.as_ref().unwrap();
        assert_eq!(score.score, metric.value);
        assert!(score.signature.starts_with("nrefs:1|bs:1000|seed:12345|"));
        assert!(score.interval.unwrap().half_width > 0.0);
        assert!(metric.standard_error.unwrap() > 0.0 && metric.values.higher_is_better());
    }
}

#[test]
fn summaries_have_rouge_with_stemming() {
    let rows = rows(&[json!({"source": "x", "target": "A dog runs"})]);
    let folder = folder(&[("summarisation/test.jsonl", rows)]);
    let prepared = prepared("summarisation", &folder).unwrap();
    let search = prepared.search.unwrap();
    let of_search = (search.length_penalty, search.min_tokens, search.max_tokens);
    assert_eq!((of_search, search.no_repeat_ngram), ((2.0, 55, 140), 3));
    let done = prepared
        .decode(&Says(vec![("x", "The dogs ran")]), &())
        .unwrap();
    let found = done
        .metrics
        .iter()
        .map(|m| format!("{} {:.4}", m.name, m.value));
    // rouge_scorer.RougeScorer(.., use_stemmer=True): "dog" alone is common.
    let expected = [
        "rouge1 0.3333",
        "rouge2 0.0000",
        "rougeL 0.3333",
        "rougeLsum 0.3333",
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let signature = &done.metrics[0].text.as_ref().unwrap().signature;
    assert!(signature.contains("stem:yes"), "{signature}");
}

#[test]
fn several_references_count_and_sources_that_are_too_long_are_left_out() {
    let long = "x".repeat(41);
    let rows = rows(&[
        json!({"source": long, "targets": ["a", "b"]}),
        json!({"source": TWO[1].0, "targets": ["No one was surprised.", "It was not unexpected."]}),
    ]);
    let folder = folder(&[("translation/validation.jsonl", rows)]);
    let prepared = prepared("translation", &folder).unwrap();
    assert_eq!(prepared.split, Some(Split::Validation));
    let done = prepared.decode(&says(), &()).unwrap();
    assert!((done.metrics[0].value - 100.0).abs() < 1e-9);
    let left_out: Vec<usize> = done.left_out.iter().map(|left| left.item).collect();
    assert_eq!(left_out, [0]);
    let signature = &done.metrics[0].text.as_ref().unwrap().signature;
    assert!(signature.starts_with("nrefs:2|"), "{signature}");
    assert_eq!(done.metrics[0].standard_error, None);
}

#[test]
fn references_are_scored_together_and_those_that_are_too_long_are_left_out() {
    let rows = rows(&[
        json!({"source": "a", "targets": ["x".repeat(41), "b"]}),
        json!({"source": "c", "targets": ["two words", "four"]}),
    ]);
    let folder = folder(&[("translation/test.jsonl", rows)]);
    let prepared = prepared("translation", &folder).unwrap();
    let done = prepared.score_references(&says(), &()).unwrap();
    let left_out: Vec<usize> = done.left_out.iter().map(|left| left.item).collect();
    assert_eq!(left_out, [0]);
    let value = |name: &str| {
        let found = done.metrics.iter().find(|metric| metric.name == name);
        found.unwrap().value
    };
    // 13 nats in 13 bytes, 3 words and 4 tokens.
    assert!((value("bits_per_byte") - 1.0 / std::f64::consts::LN_2).abs() < 1e-12);
    assert!((value("word_perplexity") - (13.0f64 / 3.0).exp()).abs() < 1e-9);
    assert!((value("token_perplexity") - (13.0f64 / 4.0).exp()).abs() < 1e-9);
}

#[test]
fn two_systems_are_paired_and_a_difference_of_chance_is_undecided() {
    let words = ["a b c d e f", "g h i j k l", "m n o p q r", "s t u v w x"];
    let all = words.iter().cycle().take(20);
    let five_times = all.map(|words| json!({"source": words, "target": words}));
    let five_times: Vec<_> = five_times.collect();
    let folder = folder(&[("translation/test.jsonl", rows(&five_times))]);
    let prepared = prepared("translation", &folder).unwrap();
    let verbatim = Says(words.map(|words| (words, words)).to_vec());
    let worse = Says(words.map(|words| (words, &words[..7])).to_vec());
    let [good, bad] = [&verbatim, &worse].map(|says| prepared.decode(says, &()).unwrap());
    for (first, second, verdict) in [
        (&bad, &good, Verdict::Better),
        (&good, &bad, Verdict::Worse),
        (&good, &good, Verdict::Undecided),
    ] {
        for comparison in compare("translation", first, second).unwrap() {
            assert_eq!(comparison.verdict(), verdict, "{comparison:?}");
            // sacreBLEU's p-value says nothing of equal systems: no resample differs by more than 0.
            let p = comparison.p_value.unwrap();
            assert!(p < 0.05, "{p}");
            let value = comparison.second - comparison.first;
            assert!((comparison.difference.value - value).abs() < 1e-9);
        }
    }
    let Values::Texts(values) = &good.metrics[0].values else {
        panic!("{:?}", good.metrics[0].values);
    };
    assert_eq!(values.len(), 20);
    assert_eq!(
        values.difference(&values.clone()).unwrap().standard_error,
        Some(0.0)
    );
}

#[test]
fn data_that_cannot_be_used_is_an_error_that_names_row_and_field() {
    let one = json!({"source": "a", "target": "b"});
    for (name, lines, expected) in [
        (
            "test.jsonl",
            rows(&[one.clone(), json!({"source": "a"})]),
            "test.jsonl, row 2, field \"target\": found no such field among source",
        ),
        (
            "test.jsonl",
            rows(&[one.clone(), json!({"target": "a"})]),
            "row 2, field \"source\": found no such field among target",
        ),
        (
            "test.jsonl",
            rows(&[one.clone(), json!({"source": " ", "target": "a"})]),
            "row 2, field \"source\": found \" \", expected a text that is not empty",
        ),
        (
            "test.jsonl",
            rows(&[one.clone(), json!({"source": "a", "targets": ["b", "c"]})]),
            "row 2, field \"targets\": found [\"b\",\"c\"], expected 1 of them, as in the first row",
        ),
        (
            "test.jsonl",
            rows(&[json!({"source": "a", "targets": []})]),
            "row 1, field \"targets\": found [], expected a list of texts",
        ),
        ("notes.txt", "a".into(), "translation: no test data in"),
    ] {
        let folder = folder(&[(&format!("translation/{name}"), lines)]);
        let error = prepared("translation", &folder).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let settings = Settings {
        split: Some(Split::Train),
        ..settings(&two())
    };
    let error = prepare(task("translation").unwrap(), &settings).unwrap_err();
    assert!(error.to_string().contains("no train data"), "{error}");
}

#[test]
fn the_other_kind_of_task_is_refused() {
    let folder = folder(&[("text/a.txt", "a".into())]);
    let prepared = prepared("text", &folder).unwrap();
    let errors = [
        prepared.decode(&says(), &()),
        prepared.score_references(&says(), &()),
    ];
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("text: a task for language models"));
    }
}
