//! Prompts with completions: one example per row, of which only the completion is trained on.

use crate::batch::Batch;
use crate::error::DataError;
use crate::examples::Examples;
use crate::token_file::TokenFile;

/// The pairs of a file, one per row: `prompt, completion, end of document`.
///
/// The target at each position is the next token. Its weight is 0 in the prompt and 1 in the completion,
/// including its end; rows are padded with weight 0.
#[derive(Clone, Debug)]
pub struct Pairs {
    tokens: TokenFile,
    seq: usize,
}

impl Pairs {
    /// The pairs of a file for rows of `seq` tokens.
    ///
    /// # Errors
    /// [`DataError::ExamplesTooLong`] if a pair has more than `seq + 1` tokens: a model would learn to stop
    /// where a completion is truncated. [`DataError::TooFewTokens`] if there are none, or one has fewer than
    /// two tokens.
    pub fn new(tokens: TokenFile, seq: usize) -> Result<Self, DataError> {
        if tokens.documents() == 0 || seq == 0 {
            return Err(DataError::TooFewTokens {
                path: tokens.path().to_path_buf(),
                tokens: tokens.len(),
            });
        }
        let most = (seq as u64).saturating_add(1);
        let (mut index, mut count, mut first) = (0, 0, None);
        tokens.each_document(&mut |document, _| {
            let length = document.end - document.start;
            if length < 2 {
                return Err(DataError::TooFewTokens {
                    path: tokens.path().to_path_buf(),
                    tokens: length,
                });
            }
            if length > most {
                count += 1;
                first.get_or_insert((index, length));
            }
            index += 1;
            Ok(())
        })?;
        if let Some((index, found)) = first {
            return Err(DataError::ExamplesTooLong {
                path: tokens.path().to_path_buf(),
                count,
                of: tokens.documents() as u64,
                index,
                tokens: found,
                allowed: most,
            });
        }
        Ok(Self { tokens, seq })
    }
}

impl Examples for Pairs {
    fn seq(&self) -> usize {
        self.seq
    }

    fn count(&self) -> u64 {
        self.tokens.documents() as u64
    }

    fn push(&self, _seed: u64, index: u64, batch: &mut Batch) -> Result<(), DataError> {
        let index = index as usize;
        let tokens = self.tokens.read(self.tokens.document(index)?)?;
        let prompt = self.tokens.prompt_tokens(index)? as usize;
        // The target at position `i` is token `i + 1`.
        let weights: Vec<f32> = (1..tokens.len())
            .map(|target| if target < prompt { 0.0 } else { 1.0 })
            .collect();
        batch.push_row(&tokens[..tokens.len() - 1], &tokens[1..], &weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batches, TokenWriter};

    /// Prompts 1 2 | 3, 4 | 5 6 and 7 8 9 | 10, each followed by an end.
    fn pairs() -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.tokens");
        let mut writer = TokenWriter::create_pairs(&path, 300, [0; 32]).unwrap();
        for (prompt, completion) in [
            (&[1, 2][..], &[3, 0][..]),
            (&[4], &[5, 6, 0]),
            (&[7, 8, 9], &[10, 0]),
        ] {
            writer.push(prompt, 1).unwrap();
            writer.end_prompt();
            writer.push(completion, 1).unwrap();
            writer.end_document().unwrap();
        }
        writer.finish().unwrap();
        let file = TokenFile::open(&path).unwrap();
        (folder, file)
    }

    #[test]
    fn prompts_have_weight_zero() {
        let (_folder, file) = pairs();
        assert!(file.has_prompts());
        let batches = Batches::new(file.clone(), 2, 5, 0).unwrap();
        assert_eq!(batches.windows(), 3);
        let batch = batches.in_order(0).unwrap().unwrap();
        assert_eq!(batch.inputs, [1, 2, 3, 0, 0, 4, 5, 6, 0, 0]);
        assert_eq!(batch.targets, [2, 3, 0, 0, 0, 5, 6, 0, 0, 0]);
        assert_eq!(batch.weights, [0., 1., 1., 0., 0., 1., 1., 1., 0., 0.]);
        let last = batches.in_order(1).unwrap().unwrap();
        assert_eq!(last.weights, [0., 0., 1., 1., 0.]);
        // Every epoch visits every pair once.
        let mut firsts: Vec<u32> = (0..3)
            .flat_map(|i| {
                Batches::new(file.clone(), 1, 5, 0)
                    .unwrap()
                    .get(i)
                    .unwrap()
                    .inputs
            })
            .step_by(5)
            .collect();
        firsts.sort();
        assert_eq!(firsts, [1, 4, 7]);
    }

    #[test]
    fn pairs_longer_than_a_row_are_errors() {
        let (_folder, file) = pairs();
        assert!(Pairs::new(file.clone(), 4).is_ok());
        let error = Pairs::new(file, 3).unwrap_err().to_string();
        assert!(error.contains("1 of 3 examples"), "{error}");
        assert!(error.contains("number 3 has 5"), "{error}");
    }
}
