//! `iiet score`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use iiet_eval::texts::{
    Resampling, TextMetric, TextSettings, TextTest, Texts, look_tokenized, read_segments,
    score_texts,
};
use iiet_files::write_file;

use crate::output;
use crate::print::{errln, outln};

#[derive(clap::Args)]
#[command(after_help = "\
BLEU, chrF and chrF++ are those of sacreBLEU 2.6 (13a tokenizer, exponential smoothing), ROUGE is that \
of rouge-score 0.1.2: equal to the last printed digit, resampling included.

A file has one segment a line. In a file called .jsonl each line is a JSON string, or an object with a \
string called \"text\", as generate --batch writes it; such a segment can have line breaks, which separate \
sentences for ROUGE-Lsum.")]
pub(crate) struct Arguments {
    /// The texts of one or more systems, a file for each.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    hypotheses: Vec<PathBuf>,
    /// The references, a file for each set. Segment n of a system belongs to segment n of each.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    references: Vec<PathBuf>,
    /// Metrics, separated by commas: bleu, chrf, chrf++, rouge.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_values_t = TextMetric::ALL)]
    metrics: Vec<TextMetric>,
    /// Give a 95 % confidence interval by bootstrap resampling of segments.
    #[arg(long, conflicts_with = "paired")]
    confidence: bool,
    /// Test each further system against the first one by paired bootstrap resampling.
    #[arg(long)]
    paired: bool,
    /// How often --confidence and --paired draw the segments again.
    #[arg(long, value_name = "N", default_value_t = Resampling::default().samples as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// The RNG seed of --confidence and --paired.
    #[arg(long, value_name = "S", default_value_t = Resampling::default().seed)]
    seed: u32,
    /// Stem words for ROUGE with the Porter stemmer.
    #[arg(long)]
    stemmer: bool,
    /// Write the scores of each segment to --out as well.
    #[arg(long, requires = "out")]
    segments: bool,
    /// Write the scores as JSON, unrounded.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for (option, files) in [
        ("--hypotheses", &arguments.hypotheses),
        ("--references", &arguments.references),
    ] {
        if let Some(file) = twice(files) {
            bail!("{option} names {} twice", file.display());
        }
    }
    if let Some(metric) = twice(&arguments.metrics) {
        bail!("--metrics names {metric} twice");
    }
    if arguments.paired && arguments.hypotheses.len() < 2 {
        bail!("--paired compares two systems or more; --hypotheses names 1");
    }
    if let Some(out) = &arguments.out {
        output::prepare(out)?;
    }
    let resampling = Resampling {
        samples: arguments.samples as usize,
        seed: arguments.seed,
    };
    let settings = TextSettings {
        metrics: arguments.metrics.clone(),
        stemmer: arguments.stemmer,
        test: match (arguments.confidence, arguments.paired) {
            (true, _) => Some(TextTest::Confidence(resampling)),
            (_, true) => Some(TextTest::Paired(resampling)),
            _ => None,
        },
        segments: arguments.segments,
    };
    let systems = read(&arguments.hypotheses)?;
    let report = score_texts(&systems, &read(&arguments.references)?, &settings)?;
    if arguments.metrics.contains(&TextMetric::Bleu) {
        for system in systems
            .iter()
            .filter(|system| look_tokenized(&system.segments))
        {
            errln!(
                "{}: 100 lines or more end in a period after a space; BLEU expects text that is not \
                 tokenized",
                system.name
            );
        }
    }
    if let Some(out) = &arguments.out {
        write_file(out, |file| writeln!(file, "{:#}", report.to_json()))
            .with_context(|| out.display().to_string())?;
    }
    let signatures = report.signatures();
    let signatures: Vec<String> = signatures
        .map(|(name, signature)| format!("{name:<10} {signature}"))
        .collect();
    outln!("{}\n\n{}", report.table(), signatures.join("\n"))
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Texts>> {
    let texts = |file: &PathBuf| {
        Ok(Texts {
            name: file.display().to_string(),
            segments: read_segments(Path::new(file))?,
        })
    };
    files.iter().map(texts).collect()
}

/// The first item that stands in the list before.
fn twice<T: PartialEq>(items: &[T]) -> Option<&T> {
    let mut numbered = items.iter().enumerate();
    numbered.find_map(|(at, item)| items[..at].contains(item).then_some(item))
}
