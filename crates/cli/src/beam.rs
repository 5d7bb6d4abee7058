//! `--beam` and other options of the commands that decode sequence-to-sequence models.

use anyhow::bail;
use iiet_eval::SearchOptions;

/// Instead of what the command has by default.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BeamArguments {
    /// Hypotheses of a source that grow side by side; 1 is greedy decoding. This and the other options of
    /// beam search are for sequence-to-sequence models [default: 4]
    #[arg(long, value_name = "N")]
    beam: Option<usize>,
    /// Rank hypotheses by log-probability per length^X; the length counts the end token [default: 0.6, or as
    /// the task says]
    #[arg(long, value_name = "X")]
    length_penalty: Option<f64>,
    /// Minimum number of tokens of a target [default: 0, or as the task says]
    #[arg(long, value_name = "N")]
    min_tokens: Option<usize>,
    /// Allow no N tokens in a row to occur twice in a target; 0 allows all [default: 0, or as the task says]
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
}

impl BeamArguments {
    /// The options that are given.
    pub(crate) fn options(&self) -> SearchOptions {
        SearchOptions {
            beam: self.beam,
            length_penalty: self.length_penalty,
            min_tokens: self.min_tokens,
            max_tokens: None,
            no_repeat_ngram: self.no_repeat_ngram,
        }
    }

    /// The first option that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--beam", self.beam.is_some()),
            ("--length-penalty", self.length_penalty.is_some()),
            ("--min-tokens", self.min_tokens.is_some()),
            ("--no-repeat-ngram", self.no_repeat_ngram.is_some()),
        ];
        let given = options.into_iter().find(|(_, given)| *given);
        given.map(|(option, _)| option)
    }
}

/// How the targets of tasks are decoded.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArguments {
    #[command(flatten)]
    beam: BeamArguments,
    /// Maximum number of tokens of a target, for sequence-to-sequence models [default: as the task says]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
}

impl TargetArguments {
    /// The options that are given.
    ///
    /// # Errors
    ///
    /// The first of them, if no task asks for targets.
    pub(crate) fn for_tasks<S: AsRef<str>>(&self, tasks: &[S]) -> anyhow::Result<SearchOptions> {
        let mut decoded = 0;
        for name in tasks {
            decoded += usize::from(iiet_eval::task(name.as_ref())?.is_of_targets());
        }
        let max_tokens = self.max_tokens.map(|_| "--max-tokens");
        if let (Some(option), 0) = (self.beam.given().or(max_tokens), decoded) {
            bail!("{option}: for translation and summarisation; --tasks names neither");
        }
        Ok(SearchOptions {
            max_tokens: self.max_tokens,
            ..self.beam.options()
        })
    }
}
