//! The texts that a measurement of a model's states is made on.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::tensor::{Device, Int, Tensor};
use iiet_data::{Part, Rows, TaskSpec, TokenFile, Tokenizer};
use iiet_distill::{calibration_pairs, calibration_texts};
use iiet_model::{EncoderDecoder, LanguageModel, MemoryEstimate, ModelConfig, Source};

/// Texts at a time.
const BATCH: usize = 4;

/// Options of methods that are calibrated.
#[derive(clap::Args)]
pub(crate) struct CalibrationArguments {
    /// What to calibrate on: a prepared corpus, such as data/cargo-deps-.., whose training tokens are taken, or a
    /// token file; for a sequence-to-sequence model those of pairs. A model that was trained on a task needs none: new
    /// examples of the task are taken.
    #[arg(long, value_name = "DIR")]
    calibration: Option<PathBuf>,
    /// Tokens to calibrate on, in windows of the model's context spread evenly over the text; of pairs, tokens of their
    /// targets.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    tokens: u64,
}

impl CalibrationArguments {
    /// Rejects what only a calibrated method uses.
    pub(crate) fn refuse(&self, method: &str) -> anyhow::Result<()> {
        ensure!(
            self.calibration.is_none(),
            "--calibration: --method {method} looks at weights alone"
        );
        Ok(())
    }

    /// The texts, checked before the model is read.
    pub(crate) fn open(&self, model: &Path) -> anyhow::Result<(Rows, String)> {
        ensure!(self.tokens > 0, "--tokens is 0; allowed: 1 and above");
        rows(model, self.calibration.as_deref(), "--calibration")
    }

    /// `[batch, seq]` each, without padding.
    pub(crate) fn texts(
        &self,
        (rows, place): (Rows, String),
        model: &LanguageModel,
        device: &Device,
    ) -> anyhow::Result<Vec<Tensor<2, Int>>> {
        let seq = model.sizes().seq_len;
        calibration_texts(&[(rows, 1.0)], self.tokens, BATCH, seq, device).context(place)
    }

    /// A source and a target each.
    pub(crate) fn pairs(
        &self,
        (rows, place): (Rows, String),
        model: &EncoderDecoder,
        device: &Device,
    ) -> anyhow::Result<Vec<(Source, Tensor<2, Int>)>> {
        let seq = model.sizes().seq_len;
        calibration_pairs(&rows, self.tokens, seq, device).context(place)
    }

    /// The states of all texts, which are kept from layer to layer.
    pub(crate) fn with_states(
        &self,
        estimate: MemoryEstimate,
        layers: usize,
        d_model: usize,
    ) -> MemoryEstimate {
        let states = (layers as u64 + 1) * d_model as u64 * size_of::<f32>() as u64;
        estimate.with("states of the texts", self.tokens.saturating_mul(states))
    }

    /// Tokens that pass through a layer at a time.
    pub(crate) fn at_a_time(config: &ModelConfig) -> usize {
        BATCH * config.seq_len
    }
}

/// What to measure on, and what to call it in messages. `flag` is the option that names the data.
pub(crate) fn rows(
    model: &Path,
    data: Option<&Path>,
    flag: &str,
) -> anyhow::Result<(Rows, String)> {
    let Some(data) = data else {
        return match TaskSpec::read(model)? {
            Some(spec) => {
                let place = model.join(TaskSpec::FILE).display().to_string();
                Ok((Rows::Task(spec, Part::Training), place))
            }
            None => bail!(
                "{flag} is needed: {} was not trained on a task",
                model.display()
            ),
        };
    };
    let file = match data.is_dir() {
        true => data.join("train.tokens"),
        false => data.to_owned(),
    };
    let tokens = TokenFile::open(&file)?;
    let tokenizer = Tokenizer::open(&model.join("tokenizer.json"))?;
    ensure!(
        tokenizer.vocab_hash() == tokens.vocab_hash(),
        "{}: written with another tokenizer than that of {}; prepare the corpus with data.tokenizer = {:?}",
        file.display(),
        model.display(),
        model.join("tokenizer.json")
    );
    Ok((Rows::Text(tokens), file.display().to_string()))
}
