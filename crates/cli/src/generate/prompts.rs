//! Prompts and sources from files and from standard input, with a limit on their length.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use iiet_files::open_regular;
use serde_json::Value;

/// All of standard input, without its last newline. `what` is a prompt or a source.
pub(super) fn standard_input(what: &str, most: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    // One more byte for the newline, and one to detect longer input.
    io::stdin()
        .take(most.saturating_add(2))
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading the {what} from standard input"))?;
    let text = String::from_utf8(bytes);
    let mut text = text.with_context(|| format!("the {what} on standard input is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    ensure!(
        text.len() as u64 <= most,
        "the {what} on standard input has more than {most} bytes; --max-prompt-bytes sets the limit"
    );
    Ok(text)
}

/// The prompts of a file with their line numbers; blank lines are skipped. Objects of a .jsonl file have
/// them in the field `what`.
pub(super) fn read(file: &Path, what: &str, most: u64) -> anyhow::Result<Vec<(usize, String)>> {
    let place = || file.display().to_string();
    let prompts = match file == Path::new("-") {
        true => lines(io::stdin().lock(), None, most),
        false => {
            let json = file.extension().is_some_and(|ending| ending == "jsonl");
            let opened = open_regular(file).with_context(place)?;
            lines(BufReader::new(opened), json.then_some(what), most)
        }
    };
    let prompts = prompts.with_context(place)?;
    if prompts.is_empty() {
        bail!("{}: no {what}s", file.display());
    }
    Ok(prompts)
}

/// `field` is that of objects, for lines of JSON.
fn lines(
    mut from: impl BufRead,
    field: Option<&str>,
    most: u64,
) -> anyhow::Result<Vec<(usize, String)>> {
    let mut prompts = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let read = (&mut from)
            .take(most.saturating_add(2))
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let prompt = prompt(line, field, most).with_context(|| format!("line {number}"))?;
        prompts.extend(prompt.map(|prompt| (number, prompt)));
    }
    Ok(prompts)
}

/// The prompt of a line, if it is not blank.
fn prompt(mut line: Vec<u8>, field: Option<&str>, most: u64) -> anyhow::Result<Option<String>> {
    for end in [b'\n', b'\r'] {
        line.pop_if(|last| *last == end);
    }
    ensure!(
        line.len() as u64 <= most,
        "more than {most} bytes; --max-prompt-bytes sets the limit"
    );
    let line = String::from_utf8(line)?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let Some(field) = field else {
        return Ok(Some(line));
    };
    let value: Value = serde_json::from_str(&line)?;
    let prompt = value.as_str().or_else(|| value.get(field)?.as_str());
    let prompt =
        prompt.ok_or_else(|| anyhow!("expected a string, or an object with a string {field:?}"))?;
    Ok(Some(prompt.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 100;

    #[test]
    fn prompts_are_lines_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("prompts.txt");
        std::fs::write(&plain, "one\n\n {\"prompt\": 2}\r\n").unwrap();
        let expected = [(1, "one".to_owned()), (3, " {\"prompt\": 2}".into())];
        assert_eq!(read(&plain, "prompt", MOST).unwrap(), expected);
        let json = folder.path().join("prompts.jsonl");
        std::fs::write(&json, "\"a\\nb\"\n{\"prompt\": \"c\", \"id\": 1}").unwrap();
        assert_eq!(
            read(&json, "prompt", MOST).unwrap(),
            [(1, "a\nb".to_owned()), (2, "c".into())]
        );
        std::fs::write(&json, "{\"source\": \"d\", \"prompt\": \"c\"}").unwrap();
        assert_eq!(read(&json, "source", MOST).unwrap(), [(1, "d".to_owned())]);
        for (text, expected) in [
            ("{\"text\": \"c\"}", "line 1"),
            ("\"a\"\n{\"prompt\": 3}", "line 2"),
            ("\"a\"\n{", "line 2"),
            (" \n", "no prompts"),
        ] {
            std::fs::write(&json, text).unwrap();
            let error = format!("{:#}", read(&json, "prompt", MOST).unwrap_err());
            assert!(
                error.contains("prompts.jsonl") && error.contains(expected),
                "{error}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_an_error_and_not_read_forever() {
        let error = format!(
            "{:#}",
            read(Path::new("/dev/zero"), "prompt", MOST).unwrap_err()
        );
        assert_eq!(error, "/dev/zero: is a device; allowed: a regular file");
    }

    #[test]
    fn a_line_longer_than_the_limit_is_an_error_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.txt");
        for ending in ["", "\n", "\r\n"] {
            std::fs::write(&file, format!("one\n{}{ending}", "x".repeat(100))).unwrap();
            assert_eq!(read(&file, "prompt", MOST).unwrap()[1].1.len(), 100);
            std::fs::write(&file, format!("one\n{}{ending}", "x".repeat(102))).unwrap();
            let error = format!("{:#}", read(&file, "prompt", MOST).unwrap_err());
            for part in [
                "prompts.txt: line 2: more than 100 bytes",
                "--max-prompt-bytes",
            ] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
