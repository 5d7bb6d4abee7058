//! `--beam` and other options of the commands that decode sequence-to-sequence models.

use iiet_text::BeamSearch;

/// Instead of what the command has by default.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BeamArguments {
    /// Hypotheses of a source that grow side by side; 1 is greedy decoding. This and the other options of
    /// beam search are for sequence-to-sequence models [default: 4]
    #[arg(long, value_name = "N")]
    beam: Option<usize>,
    /// Rank hypotheses by log-probability per length^X; the length counts the end token [default: 0.6, or as
    /// the task says]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Minimum number of tokens of a target [default: 0, or as the task says]
    #[arg(long, value_name = "N")]
    min_tokens: Option<usize>,
    /// Allow no N tokens in a row to occur twice in a target; 0 allows all [default: 0, or as the task says]
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
}

impl BeamArguments {
    /// The search with the options that are given.
    pub(crate) fn configure(&self, search: BeamSearch) -> BeamSearch {
        BeamSearch {
            beam: self.beam.unwrap_or(search.beam),
            length_penalty: self.length_penalty.unwrap_or(search.length_penalty),
            min_tokens: self.min_tokens.unwrap_or(search.min_tokens),
            no_repeat_ngram: self.no_repeat_ngram.unwrap_or(search.no_repeat_ngram),
            ..search
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
