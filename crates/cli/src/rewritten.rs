//! A model that is read, changed and written: `iiet quantize` and `iiet prune`.

use std::path::PathBuf;

use burn::tensor::{Int, Tensor};
use iiet_files::{Manifest, NewDirectory};
use iiet_model::{
    EncoderDecoder, Inference, LanguageModel, ModelError, ModelKind, Precision, SaveOptions,
    SequenceInference, Source, load_config, model_kind, of_floats, save,
};
use indicatif::ProgressBar;

use crate::along::{copy_along, create, finish};
use crate::backend::DeviceArgument;
use crate::calibration::CalibrationArguments;

/// The options that both commands have.
#[derive(clap::Args)]
pub(crate) struct RewriteArguments {
    /// The model to change: its directory, that of its run, a name on the Hugging Face hub, or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    calibration: CalibrationArguments,
    /// How weights of floats are stored: f32, bf16 or f16.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = crate::precision::parser())]
    dtype: Precision,
    /// The directory to write; it must not exist yet, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgument,
}

/// What is done, as in "quantising", and by which method.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    /// Whether the method looks at states of texts.
    pub(crate) calibrated: bool,
}

/// What a calibrated method reports: completed layers, and their number.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(usize, usize);

impl RewriteArguments {
    /// Reads the model, changes it by one of the two functions, and writes it. They are given the texts and pairs to
    /// calibrate on, none for a method that looks at weights alone.
    pub(crate) fn run(
        &self,
        work: Work,
        of_texts: impl FnOnce(
            &mut LanguageModel,
            &[Tensor<2, Int>],
            Progress<'_>,
        ) -> Result<(), ModelError>,
        of_sequences: impl FnOnce(
            &mut EncoderDecoder,
            &[(Source, Tensor<2, Int>)],
            Progress<'_>,
        ) -> Result<(), ModelError>,
    ) -> anyhow::Result<()> {
        if !work.calibrated {
            self.calibration.refuse(work.method)?;
        }
        let (directory, mut manifest) = match model_kind(&self.model)? {
            ModelKind::EncoderDecoder => self.sequences(work, of_sequences)?,
            _ => self.texts(work, of_texts)?,
        };
        copy_along(&self.model, &directory, &mut manifest)?;
        finish(directory, &manifest, &self.out)
    }

    fn texts(
        &self,
        work: Work,
        change: impl FnOnce(
            &mut LanguageModel,
            &[Tensor<2, Int>],
            Progress<'_>,
        ) -> Result<(), ModelError>,
    ) -> anyhow::Result<(NewDirectory, Manifest)> {
        let config = load_config(&self.model)?;
        let rows = match work.calibrated {
            true => Some(self.calibration.open(&self.model)?),
            false => None,
        };
        let chosen = self.device.open()?;
        let directory = create(&self.out)?;
        if chosen.on_host {
            let tokens = match work.calibrated {
                true => CalibrationArguments::at_a_time(&config),
                false => 0,
            };
            let inference = Inference {
                precision: Precision::F32,
                tokens,
                logits: 0,
                cached: 0,
                cache: Precision::F32,
            };
            let mut estimate = inference.memory(work.name, &config, &chosen.device)?;
            if work.calibrated {
                let (layers, d_model) = (config.n_layers, config.d_model);
                estimate = self.calibration.with_states(estimate, layers, d_model);
            }
            estimate.check("lower --tokens")?;
        }
        let (model, _) = iiet_model::load(&self.model, &chosen.device)?;
        let mut model = of_floats(model, &self.model)?;
        let texts = match rows {
            Some(rows) => self.calibration.texts(rows, &model, &chosen.device)?,
            None => Vec::new(),
        };
        with_bar(|progress| change(&mut model, &texts, progress))?;
        let manifest = save(&model, directory.partial(), &self.options())?;
        Ok((directory, manifest))
    }

    fn sequences(
        &self,
        work: Work,
        change: impl FnOnce(
            &mut EncoderDecoder,
            &[(Source, Tensor<2, Int>)],
            Progress<'_>,
        ) -> Result<(), ModelError>,
    ) -> anyhow::Result<(NewDirectory, Manifest)> {
        let config = EncoderDecoder::load_config(&self.model)?;
        let rows = match work.calibrated {
            true => Some(self.calibration.open(&self.model)?),
            false => None,
        };
        let chosen = self.device.open()?;
        let directory = create(&self.out)?;
        if chosen.on_host {
            let tokens = if work.calibrated { config.seq_len } else { 0 };
            let inference = SequenceInference {
                precision: Precision::F32,
                source: tokens,
                target: tokens,
            };
            let mut estimate = inference.memory(work.name, &config, &chosen.device)?;
            if work.calibrated {
                // Sources are taken to be as long as targets.
                let layers = config.encoder.n_layers + config.decoder.n_layers;
                estimate = self
                    .calibration
                    .with_states(estimate, layers, config.d_model);
            }
            estimate.check("lower --tokens, or use a machine with more")?;
        }
        let model = EncoderDecoder::load(&self.model, &chosen.device)?;
        let mut model = of_floats(model, &self.model)?;
        let pairs = match rows {
            Some(rows) => self.calibration.pairs(rows, &model, &chosen.device)?,
            None => Vec::new(),
        };
        with_bar(|progress| change(&mut model, &pairs, progress))?;
        let manifest = save(&model, directory.partial(), &self.options())?;
        Ok((directory, manifest))
    }

    fn options(&self) -> SaveOptions {
        SaveOptions {
            stored: self.dtype,
            ..SaveOptions::default()
        }
    }
}

/// A bar that shows completed layers while `work` runs.
fn with_bar(work: impl FnOnce(Progress<'_>) -> Result<(), ModelError>) -> Result<(), ModelError> {
    let bar = ProgressBar::no_length();
    let done = work(&mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}
