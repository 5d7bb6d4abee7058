//! The report at the end: the student beside its teacher, on text that both have not seen.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use iiet_data::{Corpus, SequencePairs, SourceSpec, prepare_corpus};
use iiet_distill::DistillSection;
use iiet_eval::report::{ReportSettings, kind_of, report_tasks, save, table};
use iiet_eval::{AskedGenerated, Settings};
use iiet_plots::draw_quality;
use iiet_train::{RunConfig, RunDirectory};
use serde_json::json;

use crate::backend::Chosen;
use crate::print::outln;
use crate::progress::report_progress;

/// Prints the report, and writes it and its chart into the run's directory.
pub(super) fn compare(
    config: &RunConfig,
    run: &RunDirectory,
    chosen: &Chosen,
    limit: usize,
) -> anyhow::Result<()> {
    let section = DistillSection::of(config)?.context("invariant: a student has a teacher")?;
    let models = [section.teacher, run.model()];
    let asked = Asked::of(config, run, &models, limit)?;
    let settings = ReportSettings {
        tasks: asked.tasks.into_iter().map(str::to_owned).collect(),
        evaluation: Settings {
            data: asked.data,
            // The items of a generated task are short, and are wanted at all difficulties.
            limit: asked.generated.is_empty().then_some(limit),
            cache: config.data.cache.clone(),
            generated: asked.generated,
            ..Settings::default()
        },
        host_memory: chosen.on_host,
    };
    let report = iiet_eval::report::report(&models, &settings, &chosen.device, &report_progress)?;
    let path = run.path().join("report.json");
    save(&report, &path)?;
    let svg = path.with_extension("svg");
    draw_quality(&svg, &report)?;
    outln!(
        "\n{}\n{}, {}",
        table(&report),
        path.display(),
        svg.display()
    )
}

/// What teacher and student are asked.
struct Asked {
    tasks: Vec<&'static str>,
    data: Option<PathBuf>,
    generated: Vec<AskedGenerated>,
}

impl Asked {
    /// The held-out tasks if the corpus is the one that they are made of, the task that was trained on, else
    /// the corpus's own validation part, which is written into the run's directory.
    fn of(
        config: &RunConfig,
        run: &RunDirectory,
        models: &[PathBuf],
        limit: usize,
    ) -> anyhow::Result<Self> {
        let asked = |tasks: &[&'static str], data| Self {
            tasks: tasks.to_vec(),
            data,
            generated: Vec::new(),
        };
        Ok(match &config.data.source {
            source if source.is_cargo_deps() || source.is_cargo_docs() => {
                asked(report_tasks(kind_of(models)?), None)
            }
            SourceSpec::Task(spec) => Self {
                generated: vec![AskedGenerated::new(spec.clone())?],
                ..asked(&[spec.name()], None)
            },
            _ if config.model.encoder.is_some() => {
                asked(&["translation"], Some(write_pairs(config, run, limit)?))
            }
            _ => {
                let corpus = prepare_corpus(&config.data, &())?;
                let path = run.path().join("validation.txt");
                let text = corpus.held_out_text(config.train.eval_tokens)?;
                fs::write(&path, text).with_context(|| path.display().to_string())?;
                asked(&["text"], Some(path))
            }
        })
    }
}

/// Writes held-out pairs, as data for the task `translation`, and returns the folder for `--data`.
fn write_pairs(config: &RunConfig, run: &RunDirectory, limit: usize) -> anyhow::Result<PathBuf> {
    let corpus = prepare_corpus(&config.data, &())?;
    let data = run.path().join("validation");
    let folder = data.join("translation");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("validation.jsonl");
    let rows = held_out_pairs(&corpus, config.model.seq_len, limit)?;
    fs::write(&path, rows).with_context(|| path.display().to_string())?;
    Ok(data)
}

/// At most so many pairs of all that are held out and fit in the context, evenly spaced, one a line.
fn held_out_pairs(corpus: &Corpus, seq_len: usize, limit: usize) -> anyhow::Result<String> {
    let held_out = corpus.held_out();
    let parts = held_out.iter().map(|part| part.rows.pairs(seq_len));
    let parts: Vec<Option<SequencePairs>> = parts.collect::<Result<_, _>>()?;
    let places = parts.iter().flatten().flat_map(|pairs| {
        let count = u32::try_from(pairs.count()).unwrap_or(u32::MAX);
        (0..count).map(move |pair| (pairs, pair))
    });
    let places: Vec<(&SequencePairs, u32)> = places.collect();
    let chosen = limit.min(places.len());
    let mut rows = String::new();
    for number in 0..chosen {
        let (pairs, pair) = places[number * places.len() / chosen];
        let (source, target) = pairs.texts(pair, &corpus.tokenizer)?;
        // Nothing can be asked about an empty source.
        if !source.trim().is_empty() {
            rows += &format!("{}\n", json!({"source": source, "target": target}));
        }
    }
    Ok(rows)
}
