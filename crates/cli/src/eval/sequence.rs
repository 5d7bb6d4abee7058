//! Sequence-to-sequence models, and the tasks that ask them.

use std::path::Path;

use anyhow::Context;
use iiet_eval::{EvalError, ModelDecoder, Outcome, Prepared};
use iiet_model::{EncoderDecoder, Precision};
use iiet_text::TextToText;

use super::{Arguments, Inspected, provenance};
use crate::backend::Chosen;
use crate::print::outln;

/// Looks at a sequence-to-sequence model.
pub(super) fn inspect(
    model: &Path,
    arguments: &Arguments,
    prepared: &[Prepared],
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<Inspected> {
    let name = model.display();
    arguments.corrections.refuse(model)?;
    let config = EncoderDecoder::load_config(model)?;
    for prepared in prepared {
        let task = prepared.task.name;
        let needs = EvalError::NeedsScorer { task };
        let search = prepared.search.as_ref().ok_or(needs);
        let search = search.with_context(|| name.to_string())?;
        if chosen.on_host {
            let work = format!("decoding with {name}");
            let device = &chosen.device;
            let estimate = ModelDecoder::memory(work, search, precision, &config, device)?;
            let estimate = estimate.stored_in(model)?;
            estimate.check("lower --beam or --max-tokens, or use --precision bf16")?;
        }
    }
    Ok(Inspected {
        provenance: provenance(model, arguments, precision, TextToText::rule(model)?)?,
        tokenizer: None,
    })
}

/// A model to decode with.
pub(super) fn open(
    model: &Path,
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<ModelDecoder> {
    let model = TextToText::open(precision, model, &chosen.device)?;
    Ok(ModelDecoder::new(model, precision))
}

/// Prints intervals and signatures of the scores of texts, if there are any.
pub(super) fn print_scores(model: &str, outcomes: &[Outcome<'_>]) -> anyhow::Result<()> {
    for (prepared, done) in outcomes {
        for score in done
            .metrics
            .iter()
            .filter_map(|metric| metric.text.as_ref())
        {
            outln!(
                "{model}: {} {}: 95 % interval {}, {}",
                prepared.task.name,
                score.name,
                score.interval_text(),
                score.signature
            )?;
        }
    }
    Ok(())
}
