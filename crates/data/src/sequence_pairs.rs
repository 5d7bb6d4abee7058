//! Pairs of source and target, for an encoder and a decoder.
//!
//! ```text
//! source   s_1 .. s_m end            the encoder's input
//! inputs   end t_1 .. t_n            the decoder's input
//! targets  t_1 .. t_n end            each with weight 1
//! ```
//!
//! The document end also starts the decoder, as in fairseq (Ott et al., 2019, arXiv:1904.01038), whose
//! `</s>` has both functions. A pair with more tokens on a side than the model's context is left out and
//! counted: a model would learn to stop where a target is truncated.

use std::sync::Arc;

use crate::batch::{Batch, Sources};
use crate::error::DataError;
use crate::token_file::TokenFile;
use crate::tokenizer::Tokenizer;

/// The pairs of a token file that fit in a model's context; cheap to clone.
#[derive(Clone, Debug)]
pub struct SequencePairs {
    tokens: TokenFile,
    pairs: Arc<[Pair]>,
    left_out: u64,
}

/// The position of a pair in its file.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// The first token of the source.
    start: u64,
    /// Tokens of the source and of the target, each with its end.
    lengths: PairLengths,
}

/// The numbers of tokens of the two sides of a pair, each including a document end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairLengths {
    /// Tokens of the decoder's row. First, so that the derived order is by target, then source.
    pub target: u32,
    /// Tokens of the encoder's row.
    pub source: u32,
}

impl PairLengths {
    /// The tokens of the longer side.
    pub(crate) fn longer(self) -> u32 {
        self.target.max(self.source)
    }
}

impl SequencePairs {
    /// The pairs of a file of which no side has more than `seq` tokens, including its document end.
    ///
    /// # Errors
    /// [`DataError::DocumentKind`] if the file holds other documents, [`DataError::TooFewTokens`] if it is
    /// empty, [`DataError::AllPairsTooLong`] if every pair is longer, [`DataError::OutOfMemory`] if the list
    /// of pairs does not fit (16 bytes per pair).
    pub fn new(tokens: TokenFile, seq: usize) -> Result<Self, DataError> {
        if !tokens.has_sources() {
            return Err(DataError::DocumentKind {
                path: tokens.path().to_path_buf(),
                found: match tokens.has_prompts() {
                    true => "prompts with completions",
                    false => "texts",
                },
                allowed: "pairs of source and target",
            });
        }
        if tokens.documents() == 0 {
            return Err(DataError::TooFewTokens {
                path: tokens.path().to_path_buf(),
                tokens: tokens.len(),
            });
        }
        let mut pairs = Vec::new();
        pairs
            .try_reserve_exact(tokens.documents())
            .map_err(|_| DataError::OutOfMemory {
                what: "the list of pairs",
                bytes: (tokens.documents() * size_of::<Pair>()) as u64,
            })?;
        let most = u32::try_from(seq).unwrap_or(u32::MAX);
        let mut shortest = u64::MAX;
        tokens.each_document(&mut |document, source| {
            let target = (document.end - document.start).saturating_sub(source);
            shortest = shortest.min(source.max(target));
            if let (Ok(source), Ok(target)) = (u32::try_from(source), u32::try_from(target)) {
                let lengths = PairLengths { target, source };
                if source > 0 && target > 0 && lengths.longer() <= most {
                    let start = document.start;
                    pairs.push(Pair { start, lengths });
                }
            }
            Ok(())
        })?;
        let of = tokens.documents() as u64;
        if pairs.is_empty() {
            return Err(DataError::AllPairsTooLong {
                path: tokens.path().to_path_buf(),
                of,
                shortest,
                allowed: seq as u64,
            });
        }
        Ok(Self {
            left_out: of - pairs.len() as u64,
            pairs: pairs.into(),
            tokens,
        })
    }

    /// The number of pairs, at least 1.
    pub fn count(&self) -> u64 {
        self.pairs.len() as u64
    }

    /// The number of pairs of the file that are left out because a side is longer than the context.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The file that holds the pairs.
    pub fn tokens(&self) -> &TokenFile {
        &self.tokens
    }

    /// The lengths of all pairs, in the order of the file.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = PairLengths> + '_ {
        self.pairs.iter().map(|pair| pair.lengths)
    }

    /// The lengths of some pairs, which must exist.
    pub(crate) fn lengths_of<'p>(
        &'p self,
        pairs: &'p [u32],
    ) -> impl Iterator<Item = PairLengths> + 'p {
        pairs.iter().map(|pair| self.pairs[*pair as usize].lengths)
    }

    /// Sorts pairs, which must exist, by the lengths of target and source; the order of pairs of equal lengths
    /// is kept.
    pub(crate) fn sort(&self, pairs: &mut [u32]) {
        pairs.sort_by_key(|pair| self.pairs[*pair as usize].lengths);
    }

    /// Sorts pairs, which must exist, by the longer of their sides.
    pub(crate) fn sort_by_longer(&self, pairs: &mut [u32]) {
        pairs.sort_by_key(|pair| {
            let lengths = self.pairs[*pair as usize].lengths;
            (lengths.longer(), lengths)
        });
    }

    /// A batch of the given pairs, one per row, as wide as the longest target and with sources as wide as the
    /// longest source.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] for a pair that does not exist, or if the file can no longer be read.
    pub fn batch(&self, pairs: &[u32]) -> Result<Batch, DataError> {
        let found = pairs.iter().map(|pair| self.pair(*pair));
        let found = found.collect::<Result<Vec<Pair>, _>>()?;
        let longest = |side: fn(PairLengths) -> u32| {
            let sides = found.iter().map(|pair| side(pair.lengths) as usize);
            sides.max().unwrap_or(0)
        };
        let mut batch = Batch::with_capacity(found.len(), longest(|lengths| lengths.target));
        let mut sources = Sources::with_capacity(found.len(), longest(|lengths| lengths.source));
        for pair in found {
            let (tokens, source) = self.read(pair)?;
            sources.push(&tokens[..source])?;
            // The row starts with the source's document end.
            let (inputs, targets) = (&tokens[source - 1..tokens.len() - 1], &tokens[source..]);
            batch.push_row(inputs, targets, &vec![1.0; targets.len()])?;
        }
        batch.source = Some(sources);
        Ok(batch)
    }

    /// The decoded source and target of a pair.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] for a pair that does not exist, or if the file can no longer be read or
    /// decoded by this tokenizer.
    pub fn texts(&self, pair: u32, tokenizer: &Tokenizer) -> Result<(String, String), DataError> {
        let (tokens, source) = self.read(self.pair(pair)?)?;
        let (source, target) = tokens.split_at(source);
        Ok((tokenizer.decode(source)?, tokenizer.decode(target)?))
    }

    /// The decoded sources and targets of all pairs, in the order of the file, each read when it is asked
    /// for.
    pub fn pairs_of_texts<'t>(
        &'t self,
        tokenizer: &'t Tokenizer,
    ) -> impl ExactSizeIterator<Item = Result<(String, String), DataError>> + 't {
        (0..self.pairs.len()).map(|pair| self.texts(pair as u32, tokenizer))
    }

    fn pair(&self, index: u32) -> Result<Pair, DataError> {
        let found = self.pairs.get(index as usize).copied();
        found.ok_or(DataError::OutOfRange {
            what: "pairs",
            start: u64::from(index),
            end: u64::from(index) + 1,
            len: self.count(),
        })
    }

    /// The tokens of a pair and the number of those of its source.
    fn read(&self, pair: Pair) -> Result<(Vec<u32>, usize), DataError> {
        let PairLengths { target, source } = pair.lengths;
        let end = pair.start + u64::from(source) + u64::from(target);
        Ok((self.tokens.read(pair.start..end)?, source as usize))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::TokenWriter;

    /// A file of pairs with these sources and targets, to each of which the end 0 is added.
    pub(crate) fn file(pairs: &[(Vec<u32>, Vec<u32>)]) -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.tokens");
        let mut writer = TokenWriter::create_sources(&path, 300, [0; 32]).unwrap();
        for (source, target) in pairs {
            writer.push(&[source, &[0][..]].concat(), 1).unwrap();
            writer.end_prompt();
            writer.push(&[target, &[0][..]].concat(), 1).unwrap();
            writer.end_document().unwrap();
        }
        writer.finish().unwrap();
        let file = TokenFile::open(&path).unwrap();
        (folder, file)
    }

    fn three() -> (tempfile::TempDir, TokenFile) {
        file(&[
            (vec![1, 2], vec![3]),
            (vec![4], vec![5, 6, 7]),
            (vec![8, 9, 10, 11], vec![12]),
        ])
    }

    #[test]
    fn rows_equal_those_computed_by_hand() {
        let (_folder, file) = three();
        assert!(file.has_sources() && !file.has_prompts());
        let pairs = SequencePairs::new(file, 5).unwrap();
        assert_eq!((pairs.count(), pairs.left_out()), (3, 0));
        let batch = pairs.batch(&[1, 0]).unwrap();
        assert_eq!((batch.batch, batch.seq), (2, 4));
        assert_eq!(batch.inputs, [0, 5, 6, 7, 0, 3, 0, 0]);
        assert_eq!(batch.targets, [5, 6, 7, 0, 3, 0, 0, 0]);
        assert_eq!(batch.weights, [1., 1., 1., 1., 1., 1., 0., 0.]);
        let sources = batch.source.unwrap();
        assert_eq!(sources.ids, [4, 0, 0, 1, 2, 0]);
        assert_eq!((sources.lengths, sources.seq), (vec![2, 3], 3));
        assert!(pairs.batch(&[3]).is_err());
    }

    #[test]
    fn longer_pairs_are_left_out_and_counted() {
        let (_folder, file) = three();
        // Sides of 3 and 2, 2 and 4, 5 and 2 tokens.
        for (seq, count) in [(5, 3), (4, 2), (3, 1)] {
            let pairs = SequencePairs::new(file.clone(), seq).unwrap();
            assert_eq!((pairs.count(), pairs.left_out()), (count, 3 - count));
        }
        let error = SequencePairs::new(file, 2).unwrap_err().to_string();
        assert!(error.contains("each of the 3 pairs"), "{error}");
        assert!(error.contains("the shortest has 3"), "{error}");
        assert!(error.contains("model.seq_len"), "{error}");
    }

    #[test]
    fn files_of_another_kind_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let mut writer = TokenWriter::create(&path, 300, [0; 32]).unwrap();
        writer.push(&[1, 2, 3], 3).unwrap();
        writer.finish().unwrap();
        let text = TokenFile::open(&path).unwrap();
        let error = SequencePairs::new(text, 9).unwrap_err().to_string();
        assert!(error.contains("its documents are texts"), "{error}");
        let (_folder, pairs) = three();
        let error = crate::Batches::new(pairs, 2, 9, 0).unwrap_err().to_string();
        assert!(error.contains("are pairs of source and target"), "{error}");
    }

    #[test]
    fn a_file_with_an_empty_side_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        for side in [0, 1] {
            let mut writer = TokenWriter::create_sources(&path, 300, [0; 32]).unwrap();
            for at in 0..2 {
                if at != side {
                    writer.push(&[5, 0], 1).unwrap();
                }
                if at == 0 {
                    writer.end_prompt();
                }
            }
            writer.finish().unwrap();
            let error = TokenFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("damaged"), "{error}");
        }
    }
}
