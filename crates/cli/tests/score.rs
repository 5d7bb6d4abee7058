//! `iiet score`: texts against references.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn score(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .arg("score")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two systems and two references, files of three lines.
fn files(folder: &Path) -> [String; 4] {
    let a = "The dog bit the man.\nIt was not unexpected.\nThe man bit him first.\n";
    let b = "The dog had bit the man.\nNo one was surprised.\nThe man had bitten the dog.\n";
    let first = "The dog bit the man.\nIt was not unexpected.\nThe man had bitten the dog.\n";
    let second = "The dog had bit the man.\nNo one was surprised.\nThe man bit him first.\n";
    let names = ["a.txt", "b.txt", "first.txt", "second.txt"];
    let texts = [a, b, first, second];
    let paths = names.map(|name| folder.join(name).display().to_string());
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).unwrap();
    }
    paths
}

#[test]
fn a_table_signatures_and_json_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, first, second] = files(folder.path());
    let out = folder.path().join("new/scores.json").display().to_string();
    let output = score(&[
        "--hypotheses",
        &a,
        &b,
        "--references",
        &first,
        &second,
        "--paired",
        "--samples",
        "200",
        "--segments",
        "--out",
        &out,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for expected in [
        "BLEU       nrefs:2|bs:200|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        "chrF2++    nrefs:2|bs:200|seed:12345|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0",
        "rougeLsum  nrefs:2|bs:200|seed:12345|stem:no|version:0.1.2",
        "100.00 ± 0.00",
        "100.0/100.0/100.0/100.0 (BP = 1.000 ratio = 1.000",
    ] {
        assert!(printed.contains(expected), "{printed}");
    }
    // A difference of zero is not marked as significant.
    assert!(
        printed.contains("| 0.0050 |") && !printed.contains("0.0050*"),
        "{printed}"
    );
    let json: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(json["segments"], 3);
    let scores = json["systems"][1]["scores"].as_array().unwrap();
    let names: Vec<&str> = scores
        .iter()
        .map(|score| score["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "BLEU",
            "chrF2",
            "chrF2++",
            "rouge1",
            "rouge2",
            "rougeL",
            "rougeLsum"
        ]
    );
    for score in scores {
        // Both systems match a reference in each segment.
        assert!(score["segment_scores"].as_array().unwrap().len() == 3);
        // sacreBLEU's p-value of two systems that differ in no resample: none exceeds, of 200.
        assert_eq!(score["p_value"].as_f64().unwrap(), 1.0 / 201.0, "{score}");
    }
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, first, _] = files(folder.path());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let short = write("short.txt", b"one line\n");
    let bytes = write("bytes.txt", b"a\nb\n\xff\n");
    let empty = write("empty.txt", b"");
    for (arguments, expected) in [
        (
            vec!["--hypotheses", &a, "--references", &short],
            "a.txt has 3 segments",
        ),
        (
            vec!["--hypotheses", &a, "--references", &short],
            "short.txt has 1",
        ),
        (
            vec!["--hypotheses", &bytes, "--references", &first],
            "bytes.txt, line 3",
        ),
        (
            vec!["--hypotheses", &empty, "--references", &first],
            "empty.txt: nothing in it",
        ),
        (
            vec!["--hypotheses", "none.txt", "--references", &first],
            "none.txt",
        ),
        (
            vec!["--hypotheses", &a, "--references", "/dev/zero"],
            "/dev/zero",
        ),
        (
            vec!["--hypotheses", &a, &a, "--references", &first],
            "twice",
        ),
        (
            vec![
                "--hypotheses",
                &a,
                "--references",
                &first,
                "--metrics",
                "bleu,bleu",
            ],
            "names bleu twice",
        ),
        (
            vec![
                "--hypotheses",
                &a,
                "--references",
                &first,
                "--metrics",
                "meteor",
            ],
            "allowed: bleu, chrf, chrf++, rouge",
        ),
        (
            vec!["--hypotheses", &a, "--references", &first, "--paired"],
            "two systems or more",
        ),
        (
            vec![
                "--hypotheses",
                &a,
                &b,
                "--references",
                &first,
                "--paired",
                "--confidence",
            ],
            "cannot be used with",
        ),
        (
            vec!["--hypotheses", &a, "--references", &first, "--segments"],
            "--out",
        ),
    ] {
        let output = score(&arguments);
        let message = text(&output.stderr);
        assert!(
            !output.status.success() && message.contains(expected),
            "{arguments:?}: {message}"
        );
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[test]
fn texts_that_look_tokenized_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenized.txt");
    fs::write(&path, "a b c d .\n".repeat(100)).unwrap();
    let path = path.display().to_string();
    let copy = folder.path().join("reference.txt").display().to_string();
    fs::copy(&path, &copy).unwrap();
    let output = score(&[
        "--hypotheses",
        &path,
        "--references",
        &copy,
        "--metrics",
        "bleu",
    ]);
    assert!(output.status.success());
    let message = text(&output.stderr);
    assert!(
        message.contains("tokenized.txt: 100 lines or more end in a period"),
        "{message}"
    );
    assert!(
        text(&output.stdout).contains("| 100.00 |"),
        "{}",
        text(&output.stdout)
    );
}
