//! Many prompts, results as JSONL.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use iiet_model::{Sampler, Sampling, Speed, generate_batch};
use serde_json::{Value, json};

use super::{Arguments, Writer, explain, report};
use crate::backend::Chosen;
use crate::print::{is_closed, outln};

pub(super) fn run(
    file: &Path,
    arguments: &Arguments,
    sampling: &Sampling,
    chosen: &Chosen,
) -> anyhow::Result<()> {
    let prompts = read(file)?;
    let (text_model, options) = arguments.open(chosen)?;
    let device = &chosen.device;
    let mut ids = Vec::with_capacity(prompts.len());
    for (line, prompt) in &prompts {
        let place = || format!("{}: line {line}", file.display());
        let of_prompt = text_model.encode(prompt).with_context(place)?;
        let (found, context) = (of_prompt.len(), text_model.config.seq_len);
        // All are looked at before the first is continued.
        if found > context && !options.sliding {
            bail!(
                "{}: the prompt has {found} tokens, the model's context {context}; \
                 --sliding continues the end of it",
                place()
            );
        }
        ids.push(of_prompt);
    }

    let mut speed = Speed::default();
    let size = usize::from(arguments.batch_size);
    let groups = prompts.chunks(size).zip(ids.chunks(size));
    for (group, (prompts, ids)) in groups.enumerate() {
        // A prompt's draws depend on its number, not on those beside it.
        let number = |i: usize| (group * size + i) as u64;
        let mut samplers: Vec<Sampler> = (0..ids.len())
            .map(|i| Sampler::nth(sampling, number(i)))
            .collect();
        let mut texts = vec![String::new(); ids.len()];
        let writer = |ids: &Vec<u32>| Writer::new(&text_model, ids, &arguments.stop);
        let mut writers: Vec<Writer> = ids.iter().map(writer).collect::<Result<_, _>>()?;
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let model = &text_model.model;
        let result = generate_batch(model, &ids, &options, &mut samplers, device, |i, id| {
            writers[i].take(id, |text| {
                texts[i].push_str(text);
                Ok(())
            })
        });
        let (continuations, of_group) = result.map_err(explain)?;
        speed += of_group;

        let results = prompts.iter().zip(continuations).zip(writers).zip(texts);
        for ((((_, prompt), continuation), writer), mut text) in results {
            let end = writer.finish(continuation.end, |rest| {
                text.push_str(rest);
                Ok(())
            })?;
            let line = json!({
                "prompt": prompt,
                "text": text,
                "tokens": continuation.ids.len(),
                "end": end.word(),
            });
            outln!("{line}")?;
        }
        if is_closed() {
            return Ok(());
        }
    }
    report(speed, &format!("{} prompts", prompts.len()));
    Ok(())
}

/// The prompts of a file with the numbers of their lines; blank lines are none.
fn read(file: &Path) -> anyhow::Result<Vec<(usize, String)>> {
    let place = || file.display().to_string();
    let bytes = std::fs::read(file).with_context(place)?;
    let text = String::from_utf8(bytes).with_context(place)?;
    let json = file
        .extension()
        .is_some_and(|extension| extension == "jsonl");
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    let prompts: Vec<(usize, String)> = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let prompt = if json {
                from_json(line)
            } else {
                Ok(line.to_owned())
            };
            let prompt = prompt.with_context(|| format!("{}: line {number}", file.display()))?;
            Ok((number, prompt))
        })
        .collect::<anyhow::Result<_>>()?;
    if prompts.is_empty() {
        bail!("{}: no prompts", file.display());
    }
    Ok(prompts)
}

fn from_json(line: &str) -> anyhow::Result<String> {
    let value: Value = serde_json::from_str(line)?;
    let prompt = value.as_str().or_else(|| value.get("prompt")?.as_str());
    let prompt = prompt
        .ok_or_else(|| anyhow!("expected a string, or an object with a string \"prompt\""))?;
    Ok(prompt.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_lines_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("prompts.txt");
        std::fs::write(&plain, "one\n\n {\"prompt\": 2}\r\n").unwrap();
        let expected = [(1, "one".to_owned()), (3, " {\"prompt\": 2}".into())];
        assert_eq!(read(&plain).unwrap(), expected);
        let json = folder.path().join("prompts.jsonl");
        std::fs::write(&json, "\"a\\nb\"\n{\"prompt\": \"c\", \"id\": 1}").unwrap();
        assert_eq!(
            read(&json).unwrap(),
            [(1, "a\nb".to_owned()), (2, "c".into())]
        );
        for (text, expected) in [
            ("{\"text\": \"c\"}", "line 1"),
            ("\"a\"\n{\"prompt\": 3}", "line 2"),
            ("\"a\"\n{", "line 2"),
            (" \n", "no prompts"),
        ] {
            std::fs::write(&json, text).unwrap();
            let error = format!("{:#}", read(&json).unwrap_err());
            assert!(
                error.contains("prompts.jsonl") && error.contains(expected),
                "{error}"
            );
        }
    }
}
