//! Scores of texts against those of sacreBLEU 2.6.0 and rouge-score 0.1.2.
//!
//! `texts/segments.jsonl` has the segments, `texts/expected.json` and `texts/stems.txt` what the Python
//! packages make of them; `benches/peers/text_scores.py` writes all three.

use std::fs;
use std::path::{Path, PathBuf};

use iiet_eval::EvalError;
use iiet_eval::texts::{
    Bleu, Chrf, CorpusMetric, ROUGE_TYPES, ROUGE_WORDS, Resampling, Rouge, RougeScore,
    SEGMENT_BYTES, TextMetric, TextScore, TextSettings, TextTest, Texts, read_segments,
    score_texts, stem, sums, tokenize_13a,
};
use proptest::prelude::*;
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/texts")
        .join(name)
}

/// A segment of two systems with its references.
struct Row {
    a: String,
    b: String,
    references: Vec<String>,
    is_odd: bool,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(file("segments.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let string = |value: &Value| value.as_str().unwrap().to_owned();
        Row {
            a: string(&row["a"]),
            b: string(&row["b"]),
            references: row["references"]
                .as_array()
                .unwrap()
                .iter()
                .map(string)
                .collect(),
            is_odd: row["odd"].as_bool().unwrap(),
        }
    };
    text.split_terminator('\n').map(row).collect()
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(file("expected.json")).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// Equal but for the last bits of an f64: serde_json reads numbers with an error of one, and exp and ln
/// differ from one C library to another.
fn close(found: f64, expected: f64, what: &str) {
    let tolerance = 2e-15 * expected.abs();
    assert!(
        (found - expected).abs() <= tolerance,
        "{what}: {found:?}, expected {expected:?}"
    );
}

/// The part of the rows that a corpus of this name has.
fn corpus(name: &str) -> (Vec<Texts>, Vec<Texts>) {
    let (part, references) = name.rsplit_once(", ").unwrap();
    let references: usize = references[..1].parse().unwrap();
    let mut rows = rows();
    match part {
        "all" => {}
        "regular" => rows.retain(|row| !row.is_odd),
        "odd" => rows.retain(|row| row.is_odd),
        "ten" => rows.truncate(10),
        "one" => rows = rows.into_iter().skip(3).take(1).collect(),
        "empty" | "no match" => {
            rows.truncate(5);
            let (a, b) = if part == "empty" {
                ("", " ")
            } else {
                ("zzzz 0", "q")
            };
            for row in &mut rows {
                (row.a, row.b) = (a.to_owned(), b.to_owned());
            }
        }
        other => panic!("{other}"),
    }
    let texts = |name: &str, of: &dyn Fn(&Row) -> String| Texts {
        name: name.to_owned(),
        segments: rows.iter().map(of).collect(),
    };
    let systems = vec![
        texts("a", &|row| row.a.clone()),
        texts("b", &|row| row.b.clone()),
    ];
    let references = (0..references)
        .map(|k| texts("reference", &|row| row.references[k].clone()))
        .collect();
    (systems, references)
}

fn score(
    corpus: &(Vec<Texts>, Vec<Texts>),
    metric: TextMetric,
    test: Option<TextTest>,
) -> Vec<Vec<TextScore>> {
    let settings = TextSettings {
        metrics: vec![metric],
        stemmer: false,
        test,
        segments: false,
    };
    let report = score_texts(&corpus.0, &corpus.1, &settings).unwrap();
    report
        .systems
        .into_iter()
        .map(|(_, scores)| scores)
        .collect()
}

/// sacreBLEU's `Score.format` with two digits.
fn line(score: &TextScore) -> String {
    let interval = score.interval.filter(|interval| interval.mean > 0.0);
    let interval = interval.map_or_else(String::new, |interval| {
        format!(" (μ = {:.2} ± {:.2})", interval.mean, interval.half_width)
    });
    let detail = score.detail.as_ref().map(|detail| format!(" {detail}"));
    format!(
        "{}|{} = {:.2}{interval}{}",
        score.name,
        score.signature,
        score.score,
        detail.unwrap_or_default()
    )
}

#[test]
fn corpus_scores_intervals_and_p_values_are_those_of_sacrebleu() {
    let expected = expected();
    let resampling = Resampling::default();
    for (name, expected) in expected["corpora"].as_object().unwrap() {
        let corpus = corpus(name);
        for metric in [TextMetric::Bleu, TextMetric::Chrf, TextMetric::ChrfPlusPlus] {
            let expected = &expected[metric.to_string()];
            let what = format!("{name}, {metric}");
            let single = score(&corpus, metric, None);
            let intervals = score(&corpus, metric, Some(TextTest::Confidence(resampling)));
            for (system, (single, interval)) in single.iter().zip(&intervals).enumerate() {
                let system = ["a", "b"][system];
                let expected_single = &expected["single"][system];
                close(single[0].score, number(&expected_single[0]), &what);
                assert_eq!(line(&single[0]), expected_single[1].as_str().unwrap());
                // There is none where sacreBLEU ends with a TypeError: chrF is zero for some resamples.
                if let Some(expected) = expected["confidence"].get(system) {
                    let found = interval[0].interval.unwrap();
                    close(found.mean, number(&expected[0]), &what);
                    close(found.half_width, number(&expected[1]), &what);
                    assert_eq!(line(&interval[0]), expected[2].as_str().unwrap());
                }
            }
            let paired = score(&corpus, metric, Some(TextTest::Paired(resampling)));
            for (found, row) in paired.iter().zip(expected["paired"].as_array().unwrap()) {
                let found = &found[0];
                let interval = found.interval.unwrap();
                close(found.score, number(&row[0]), &what);
                close(interval.mean, number(&row[1]), &what);
                close(interval.half_width, number(&row[2]), &what);
                match (found.p_value, row[3].as_f64()) {
                    (Some(found), Some(expected)) => close(found, expected, &what),
                    (found, expected) => assert_eq!(found, expected, "{what}"),
                }
                assert_eq!(
                    found.signature,
                    expected["paired_signature"].as_str().unwrap()
                );
            }
        }
    }
}

#[test]
fn corpus_scores_and_intervals_are_those_of_rouge_score() {
    let expected = expected();
    let test = Some(TextTest::Confidence(Resampling::default()));
    for (name, expected) in expected["corpora"].as_object().unwrap() {
        let (systems, references) = corpus(name);
        for (key, stemmer) in [("rouge", false), ("rouge-stemmed", true)] {
            let settings = TextSettings {
                metrics: vec![TextMetric::Rouge],
                stemmer,
                test,
                segments: false,
            };
            let report = score_texts(&systems, &references, &settings).unwrap();
            for (system, scores) in report.systems {
                for (score, kind) in scores.iter().zip(ROUGE_TYPES) {
                    let expected = &expected[key][&system][kind];
                    let found = score.rouge.unwrap();
                    let interval = found.interval.unwrap();
                    let what = format!("{name}, {system}, {kind}, {key}");
                    assert_eq!(score.name, kind);
                    let same = |found: RougeScore, expected: &Value| {
                        let found = [found.precision, found.recall, found.fmeasure];
                        for (found, expected) in found.into_iter().zip(numbers(expected)) {
                            close(found, expected, &what);
                        }
                    };
                    same(found.mean, &expected["mean"]);
                    same(interval.low, &expected["interval"][0]);
                    same(interval.mid, &expected["interval"][1]);
                    same(interval.high, &expected["interval"][2]);
                }
            }
        }
    }
}

#[test]
fn segments_are_scored_as_in_python() {
    let expected = expected();
    let expected = expected["segments"].as_array().unwrap();
    let rows = rows();
    assert!(rows.len() > 250 && rows.len() == expected.len());
    let as_f64 = |counts: Vec<u64>| -> Vec<f64> { counts.into_iter().map(|x| x as f64).collect() };
    for (number_of, (row, expected)) in rows.iter().zip(expected).enumerate() {
        let what = format!("segment {number_of}");
        let references: Vec<&str> = row.references.iter().map(String::as_str).collect();
        let counts = as_f64(Bleu::default().statistics(&row.a, &references));
        assert_eq!(counts, numbers(&expected["bleu_counts"]), "{what}");
        let found = Bleu::default().segment_score(&counts);
        close(found, number(&expected["bleu"]), &what);
        for (metric, key) in [(Chrf::CHRF, "chrf"), (Chrf::CHRF_PLUS_PLUS, "chrf++")] {
            let counts = as_f64(metric.statistics(&row.a, &references));
            close(metric.segment_score(&counts), number(&expected[key]), &what);
        }
        let same = |scores: [RougeScore; 4], expected: &Value| {
            let flat = |score: RougeScore| [score.precision, score.recall, score.fmeasure];
            let found = scores.into_iter().flat_map(flat);
            for (found, expected) in found.zip(numbers(expected)) {
                close(found, expected, &what);
            }
        };
        let plain = Rouge { stemmer: false }.score(&row.b, &references[..1]);
        same(plain.unwrap(), &expected["rouge"]);
        let stemmed = Rouge { stemmer: true }.score(&row.a, &references);
        same(stemmed.unwrap(), &expected["rouge-stemmed"]);
    }
}

#[test]
fn odd_texts_are_tokenized_as_by_13a() {
    let expected = expected();
    let tokens = expected["tokens_13a"].as_array().unwrap();
    for (text, tokens) in expected["odd_texts"].as_array().unwrap().iter().zip(tokens) {
        let text = text.as_str().unwrap();
        assert_eq!(tokenize_13a(text), tokens.as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn stems_are_nltks() {
    let stems = fs::read_to_string(file("stems.txt")).unwrap();
    let mut words = 0;
    for line in stems.lines() {
        let (word, expected) = line.split_once(' ').unwrap();
        assert_eq!(stem(word), expected, "{word}");
        words += 1;
    }
    assert!(words > 2000, "{words}");
}

#[test]
fn resamples_with_large_counts_round_as_in_float32() {
    let expected = expected();
    let resampling = Resampling {
        samples: 100,
        ..Resampling::default()
    };
    let bleu = Bleu::default();
    let metrics: [(&str, &dyn CorpusMetric); 2] = [("bleu", &bleu), ("chrf", &Chrf::CHRF)];
    for (key, metric) in metrics {
        let expected = &expected["large_counts"][key];
        let statistics: Vec<Vec<u64>> = expected["statistics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|counts| numbers(counts).into_iter().map(|x| x as u64).collect())
            .collect();
        assert!(sums(&statistics)[0] > 2f64.powi(24));
        let resampled = resampling.of_metric(metric, &statistics);
        for (found, expected) in resampled.scores().iter().zip(numbers(&expected["scores"])) {
            close(*found, expected, key);
        }
        let interval = resampled.interval().unwrap();
        close(interval.mean, number(&expected["mean"]), key);
        close(interval.half_width, number(&expected["half_width"]), key);
    }
}

#[test]
fn numbers_of_segments_must_be_equal() {
    let texts = |name: &str, segments: &[&str]| Texts {
        name: name.to_owned(),
        segments: segments.iter().map(|text| (*text).to_owned()).collect(),
    };
    let settings = TextSettings {
        metrics: TextMetric::ALL.to_vec(),
        stemmer: false,
        test: None,
        segments: false,
    };
    let score = |systems: &[Texts], references: &[Texts]| {
        let error = score_texts(systems, references, &settings).unwrap_err();
        error.to_string()
    };
    let (two, one, none) = (
        texts("two.txt", &["a", "b"]),
        texts("one.txt", &["a"]),
        texts("none.txt", &[]),
    );
    let message = score(std::slice::from_ref(&two), &[two.clone(), one.clone()]);
    assert!(
        message.contains("two.txt has 2 segments, one.txt has 1"),
        "{message}"
    );
    let message = score(std::slice::from_ref(&none), std::slice::from_ref(&none));
    assert!(message.contains("none.txt"), "{message}");
    assert!(score(&[], std::slice::from_ref(&two)).contains("no system"));
    assert!(score(&[two], &[]).contains("no reference"));
}

#[test]
fn files_are_read_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let read = |name, bytes: &[u8]| read_segments(&write(name, bytes));
    let expected = ["a  b", "", "  c", "d\u{2028}e"];
    let found = read("a.txt", "a  b \r\n\n  c\t\nd\u{2028}e".as_bytes());
    assert_eq!(found.unwrap(), expected);
    assert_eq!(read("b.txt", b"\n\n").unwrap(), ["", ""]);
    let json = b"\"a\\nb \"\n{\"prompt\": 1, \"text\": \"c\"}\n";
    assert_eq!(read("a.jsonl", json).unwrap(), ["a\nb ", "c"]);

    let message = |name, bytes: &[u8]| read(name, bytes).unwrap_err().to_string();
    assert!(message("empty.txt", b"").contains("empty.txt: nothing in it"));
    let found = message("bytes.txt", b"ok\nab\xffc\n");
    assert!(
        found.contains("bytes.txt, line 2: byte 3 of the line is not UTF-8"),
        "{found}"
    );
    for (line, part) in [
        ("", "EOF"),
        ("{\"text\": 1}", "not a string"),
        ("{}", "without \"text\""),
        ("[]", "an array"),
        ("3", "a number"),
    ] {
        let found = message("bad.jsonl", format!("\"a\"\n{line}\n").as_bytes());
        assert!(
            found.contains("bad.jsonl, row 2: ") && found.contains(part),
            "{found}"
        );
    }
    let missing = read_segments(&folder.path().join("missing.txt")).unwrap_err();
    assert!(missing.to_string().contains("missing.txt"), "{missing}");
}

#[test]
fn limits_name_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    let longest = "x".repeat(SEGMENT_BYTES);
    fs::write(&path, format!("a\n{longest}\nb")).unwrap();
    assert_eq!(read_segments(&path).unwrap().len(), 3);
    // A hundred megabytes without a line break; sparse, so the disk holds none of it.
    let file = fs::File::create(&path).unwrap();
    file.set_len(100 << 20).unwrap();
    let found = read_segments(&path).unwrap_err();
    assert!(
        matches!(
            found,
            EvalError::LongLine {
                line: 1,
                allowed: SEGMENT_BYTES,
                ..
            }
        ),
        "{found}"
    );
    assert!(found.to_string().contains("SEGMENT_BYTES"), "{found}");

    let words = "a ".repeat(ROUGE_WORDS + 1);
    let rouge = Rouge::default();
    let found = rouge.score("a", &[&words]).unwrap_err().to_string();
    assert!(
        found.contains("32769 words") && found.contains("ROUGE_WORDS"),
        "{found}"
    );
    let scores = rouge.score(&words[..2 * ROUGE_WORDS], &["a a"]).unwrap();
    assert_eq!(scores[2].recall, 1.0);
}

proptest! {
    /// Any text at all: no panic, and scores in their range.
    #[test]
    fn any_text_has_scores(
        hypothesis in "\\PC{0,40}|[a-c .,&;\n-]{0,60}",
        references in prop::collection::vec("\\PC{0,40}|[a-c .,&;\n-]{0,60}|(?s:.{0,20})", 1..4),
    ) {
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        let bleu = Bleu::default();
        let metrics: [&dyn CorpusMetric; 3] = [&bleu, &Chrf::CHRF, &Chrf::CHRF_PLUS_PLUS];
        for metric in metrics {
            let counts = sums(&[metric.statistics(&hypothesis, &references)]);
            let score = metric.segment_score(&counts);
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score), "{} {score}", metric.name());
            let same = sums(&[metric.statistics(&hypothesis, &[&hypothesis])]);
            let same = metric.segment_score(&same);
            prop_assert!(same == 0.0 || (same - 100.0).abs() < 1e-9, "{} {same}", metric.name());
        }
        for stemmer in [false, true] {
            let rouge = Rouge { stemmer };
            for score in rouge.score(&hypothesis, &references).unwrap() {
                for x in [score.precision, score.recall, score.fmeasure] {
                    prop_assert!((0.0..=1.0).contains(&x), "{x}");
                }
            }
        }
    }

    /// Tokens are not split again.
    #[test]
    fn tokens_of_letters_stay_whole(words in prop::collection::vec("[a-zäß]{1,6}", 0..9)) {
        prop_assert_eq!(tokenize_13a(&words.join(" \u{3000}")), words.join(" "));
    }
}
