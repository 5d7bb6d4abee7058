//! Batches: rows of input tokens, target tokens and target weights.

use crate::error::DataError;

/// Rows of input tokens, their target tokens and the targets' weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The input tokens.
    ///
    /// # Shapes
    /// `[batch, seq]`, row-major; 0 where the row is padded.
    pub inputs: Vec<u32>,
    /// The target token at each position; same shape. In text it is the token after the input.
    pub targets: Vec<u32>,
    /// The weight of the loss at each position; same shape. 1 in text, 0 if the target is padding or part of
    /// a prompt.
    pub weights: Vec<f32>,
    /// Number of rows.
    pub batch: usize,
    /// Tokens per row.
    pub seq: usize,
    /// The sources of the rows, if these are the targets of pairs.
    pub source: Option<Sources>,
}

/// The sources of a batch's rows, the input of an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The tokens.
    ///
    /// # Shapes
    /// `[batch, seq]`, row-major; 0 after the end of a source.
    pub ids: Vec<u32>,
    /// The number of tokens of each source, at least 1, including its document end.
    ///
    /// # Shapes
    /// `[batch]`.
    pub lengths: Vec<usize>,
    /// Tokens per row, the number of the longest source.
    pub seq: usize,
}

impl Sources {
    /// An empty list with capacity for `rows` sources of `seq` tokens.
    pub fn with_capacity(rows: usize, seq: usize) -> Self {
        Self {
            ids: Vec::with_capacity(rows.saturating_mul(seq).min(MAX_BATCH_TOKENS)),
            lengths: Vec::with_capacity(rows.min(MAX_BATCH_TOKENS)),
            seq,
        }
    }

    /// Appends a source, padded to the length of a row.
    ///
    /// # Errors
    /// [`DataError::SourceRow`] if it has no token or more than a row.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), DataError> {
        if ids.is_empty() || ids.len() > self.seq {
            return Err(DataError::SourceRow {
                tokens: ids.len(),
                seq: self.seq,
            });
        }
        self.ids.extend(ids);
        self.lengths.push(ids.len());
        self.ids.resize(self.lengths.len() * self.seq, 0);
        Ok(())
    }
}

impl Batch {
    /// An empty batch, without sources, with capacity for `batch` rows of `seq` tokens.
    pub fn with_capacity(rows: usize, seq: usize) -> Self {
        let tokens = rows.saturating_mul(seq).min(MAX_BATCH_TOKENS);
        Self {
            inputs: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            weights: Vec::with_capacity(tokens),
            batch: 0,
            seq,
            source: None,
        }
    }

    /// Appends a row and pads it to the batch's length with tokens 0 of weight 0.
    ///
    /// # Errors
    /// [`DataError::Row`] if the three differ in length or are longer than the row, or a weight is negative
    /// or not finite.
    pub fn push_row(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        weights: &[f32],
    ) -> Result<(), DataError> {
        let lengths = [inputs.len(), targets.len(), weights.len()];
        let invalid = |what: String| DataError::Row {
            what,
            seq: self.seq,
        };
        if lengths
            .iter()
            .any(|length| *length != lengths[0] || *length > self.seq)
        {
            let [inputs, targets, weights] = lengths;
            return Err(invalid(format!(
                "{inputs} inputs, {targets} targets and {weights} weights"
            )));
        }
        if let Some(weight) = weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            return Err(invalid(format!("a weight of {weight}")));
        }
        self.inputs.extend(inputs);
        self.targets.extend(targets);
        self.weights.extend(weights);
        self.batch += 1;
        let length = self.batch * self.seq;
        self.inputs.resize(length, 0);
        self.targets.resize(length, 0);
        self.weights.resize(length, 0.0);
        Ok(())
    }

    /// The number of targets with a positive weight.
    pub fn counted(&self) -> u64 {
        self.weights.iter().filter(|weight| **weight > 0.0).count() as u64
    }

    /// The targets with a positive weight, row by row.
    pub fn counted_targets(&self) -> impl Iterator<Item = impl Iterator<Item = u32> + '_> + '_ {
        let rows = self
            .targets
            .chunks(self.seq)
            .zip(self.weights.chunks(self.seq));
        rows.map(|(targets, weights)| {
            let row = targets.iter().zip(weights);
            row.filter(|(_, weight)| **weight > 0.0)
                .map(|(target, _)| *target)
        })
    }
}

/// Limit on the tokens of a batch; larger values are assumed to be mistakes.
pub(crate) const MAX_BATCH_TOKENS: usize = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_checked() {
        let mut batch = Batch::with_capacity(2, 3);
        batch.push_row(&[5, 6], &[7, 8], &[0.0, 0.5]).unwrap();
        batch.push_row(&[1, 2, 3], &[2, 3, 4], &[1.0; 3]).unwrap();
        assert_eq!(batch.inputs, [5, 6, 0, 1, 2, 3]);
        assert_eq!(batch.targets, [7, 8, 0, 2, 3, 4]);
        assert_eq!(batch.weights, [0.0, 0.5, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!((batch.batch, batch.counted()), (2, 4));
        let counted: Vec<Vec<u32>> = batch.counted_targets().map(Iterator::collect).collect();
        assert_eq!(counted, [vec![8], vec![2, 3, 4]]);
        for (inputs, targets, weights, said) in [
            (
                &[1, 2, 3, 4][..],
                &[1, 2, 3, 4][..],
                &[1.0; 4][..],
                "4 inputs",
            ),
            (&[1], &[1, 2], &[1.0], "2 targets"),
            (&[1], &[1], &[], "0 weights"),
            (&[1], &[1], &[f32::NAN], "a weight of NaN"),
            (&[1], &[1], &[-1.0], "a weight of -1"),
        ] {
            let error = batch
                .push_row(inputs, targets, weights)
                .unwrap_err()
                .to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(batch.batch, 2);
    }

    #[test]
    fn sources_are_padded_and_checked() {
        let mut sources = Sources::with_capacity(2, 3);
        sources.push(&[5]).unwrap();
        sources.push(&[6, 7, 8]).unwrap();
        assert_eq!(sources.ids, [5, 0, 0, 6, 7, 8]);
        assert_eq!(sources.lengths, [1, 3]);
        for (ids, said) in [(&[][..], "0 tokens"), (&[1; 4], "4 tokens")] {
            let error = sources.push(ids).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(sources.lengths.len(), 2);
    }
}
