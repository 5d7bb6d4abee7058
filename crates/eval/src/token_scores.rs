//! Log-probabilities of tokens after hidden states, with a bounded number of logits at a time.

use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_model::token_ids;

use crate::error::EvalError;
use crate::token_scorer::TokenScore;

/// The maximum number of logits that exist at once, 64 MiB.
pub(crate) const LOGITS: usize = 1 << 24;

/// The scores of `(row, token)`, in their order: how probable the token is after the hidden states of the row.
///
/// `logits` is the model's output projection, `[1, n, d_model]` to `[1, n, vocab]`.
///
/// # Shapes
/// - hidden: `[rows, d_model]`
///
/// # Errors
/// [`EvalError::Scorer`] if the device fails.
pub(crate) fn score_tokens(
    hidden: &Tensor<2>,
    wanted: &[(usize, u32)],
    vocab_size: usize,
    logits: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Result<Vec<TokenScore>, EvalError> {
    let device = hidden.device();
    let mut scores = Vec::with_capacity(wanted.len());
    for wanted in wanted.chunks((LOGITS / vocab_size).max(1)) {
        let (rows, tokens): (Vec<i64>, Vec<u32>) = wanted
            .iter()
            .map(|(row, token)| (*row as i64, *token))
            .unzip();
        let rows = TensorData::new::<i64, _>(rows, [tokens.len()]);
        let rows = Tensor::<1, Int>::from_data(rows, &device);
        let logits = logits(hidden.clone().select(0, rows).unsqueeze::<3>());
        scores.extend(of_logits(logits.squeeze_dim::<2>(0), &tokens, &device)?);
    }
    Ok(scores)
}

/// # Shapes
/// - logits: `[n, vocab]`, tokens: `n`
fn of_logits(
    logits: Tensor<2>,
    tokens: &[u32],
    device: &Device,
) -> Result<Vec<TokenScore>, EvalError> {
    let ids = token_ids(tokens, [tokens.len(), 1], device);
    let chosen = logits.clone().gather(1, ids);
    let best = logits.clone().argmax(1);
    // The log softmax of the selected tokens only: x - m - log sum exp(x - m), m the largest logit.
    let greatest = logits.clone().gather(1, best.clone());
    let sum = (logits - greatest.clone()).exp().sum_dim(1);
    let chosen = chosen - greatest - sum.log();
    let failed = |error: &dyn std::fmt::Display| EvalError::Scorer {
        message: format!("reading scores from the device: {error}"),
    };
    let chosen = chosen
        .try_into_vec_as::<f32>()
        .map_err(|error| failed(&error))?;
    let best = best
        .try_into_vec_as::<i64>()
        .map_err(|error| failed(&error))?;
    let scores = chosen.into_iter().zip(best).zip(tokens);
    Ok(scores
        .map(|((log_probability, best), token)| TokenScore {
            log_probability,
            is_greedy: best == i64::from(*token),
        })
        .collect())
}
