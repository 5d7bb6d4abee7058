//! Decoding: new tokens of targets with caches, equal to the full pass.
//!
//! The decoder keeps the keys and values of self-attention for each (layer, evaluation) pair, as a language
//! model does. Those of cross-attention depend on the source and the layer alone: there is one pair a layer,
//! computed once for a source, that all evaluations and all tokens share.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::{CrossedBlock, Memory, Precision, Tokens, Visibility};
use iiet_kernels::{kept_rows, on_workers};

use super::{EncoderDecoder, Source, padded};
use crate::decoder::{Cache, last_of_each};
use crate::{Pass, token_ids};

/// The encoded sources of a batch, and the KV cache of their targets.
#[derive(Debug, Clone)]
pub struct SourceCache {
    own: Cache<CrossedBlock>,
    /// Keys and values of cross-attention, by layer.
    crossed: Arc<Vec<[Tensor<4>; 2]>>,
    /// The tokens of each source. Consecutive rows share a source, the same number of rows each.
    sources: Arc<[usize]>,
}

impl SourceCache {
    /// The number of target tokens of each row of the batch.
    pub fn lengths(&self) -> &[usize] {
        self.own.lengths()
    }

    /// Keeps these rows of the batch, in this order; a row that is named more than once is copied.
    ///
    /// The keys and values of cross-attention are not copied where every source has the same number of
    /// consecutive rows, as the beams of a search have.
    ///
    /// # Panics
    ///
    /// If no row is kept, or an index is out of range.
    pub fn keep_rows(&mut self, rows: &[usize]) {
        let batch = self.own.lengths().len();
        assert!(
            !rows.is_empty() && rows.iter().all(|row| *row < batch),
            "keep_rows: {rows:?} of {batch} rows"
        );
        if rows.iter().copied().eq(0..batch) {
            return;
        }
        on_workers(|| self.own.keep_rows(rows));
        let shared = batch / self.sources.len();
        let of_rows: Vec<usize> = rows.iter().map(|row| row / shared).collect();
        let runs: Vec<&[usize]> = of_rows.chunk_by(|a, b| a == b).collect();
        let alike = runs.iter().all(|run| run.len() == runs[0].len());
        let kept = match alike {
            true => runs.iter().map(|run| run[0]).collect(),
            false => of_rows,
        };
        self.keep_sources(&kept);
    }

    fn keep_sources(&mut self, kept: &[usize]) {
        if kept.iter().copied().eq(0..self.sources.len()) {
            return;
        }
        let keep = |x: &Tensor<4>| kept_rows(x.clone(), kept, x.dims()[2]);
        let layers = self.crossed.iter();
        self.crossed = Arc::new(layers.map(|pair| pair.each_ref().map(keep)).collect());
        self.sources = kept.iter().map(|source| self.sources[*source]).collect();
    }
}

impl EncoderDecoder {
    /// Encodes sources, for targets that are empty yet. The targets' keys and values are stored in a dtype
    /// of their own.
    pub fn cache(&self, source: &Source, stored: Precision) -> SourceCache {
        let memory = self.encode(source);
        let layers = self.decoder.layers.iter();
        let crossed = layers.map(|block| block.encoder_attn.of_memory(memory.clone()));
        SourceCache {
            own: Cache::empty(&self.decoder.evaluations(), source.lengths().len(), stored),
            crossed: Arc::new(crossed.collect()),
            sources: source.lengths().into(),
        }
    }

    /// The normalised hidden states of new target tokens, which are added to the cache.
    ///
    /// They equal those of [`hidden`](Self::hidden) over the whole targets, however these are split. In row b
    /// only the columns `tokens[b]` are tokens; the others are padding, whose hidden states are meaningless.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// If the number of rows differs from the cache's, or a row's tokens are outside `0..seq`.
    pub fn extend(
        &self,
        ids: Tensor<2, Int>,
        tokens: &[Range<usize>],
        cache: &mut SourceCache,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let rows = cache.own.rows(tokens, ids.dims());
        let memory = Memory::Kept {
            layers: cache.crossed.clone(),
            visible: Visibility::keys(cache.sources.clone()),
        };
        let limit = self.sizes().seq_len;
        let new = Tokens::New { rows, seq, limit };
        let context = self.context(new, memory, &ids.device());
        let y = self.embed(ids);
        cache.own.pass(tokens, context, |pass: &mut Pass<'_, _>| {
            self.decoder.hidden(y, pass)
        })
    }

    /// The logits of one more token for each row that has one; the others are unchanged, and their logits
    /// are meaningless.
    ///
    /// # Shapes
    ///
    /// - ids: one per row of the batch
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    ///
    /// The same as for [`extend`](Self::extend).
    pub fn decode(
        &self,
        ids: &[Option<u32>],
        cache: &mut SourceCache,
        device: &Device,
    ) -> Tensor<2> {
        let batch = ids.len();
        let columns: Vec<Range<usize>> = ids.iter().map(|id| 0..id.iter().len()).collect();
        let ids: Vec<u32> = ids.iter().map(|id| id.unwrap_or(0)).collect();
        let ids = token_ids(&ids, [batch, 1], device);
        let vocab = self.sizes().vocab_size;
        on_workers(|| {
            let hidden = self.extend(ids, &columns, cache);
            self.logits(hidden).reshape([batch, vocab])
        })
    }

    /// The logits after the last token of targets of any lengths, which are added to the cache.
    ///
    /// # Shapes
    ///
    /// - targets: one for each row of the batch
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    ///
    /// If a target is empty, or the number of rows differs from the cache's.
    pub fn prefill(
        &self,
        targets: &[&[u32]],
        cache: &mut SourceCache,
        device: &Device,
    ) -> Tensor<2> {
        assert!(
            targets.iter().all(|target| !target.is_empty()),
            "prefill: a target is empty"
        );
        let columns: Vec<Range<usize>> = targets.iter().map(|target| 0..target.len()).collect();
        let (ids, shape) = padded(targets);
        let hidden = on_workers(|| self.extend(token_ids(&ids, shape, device), &columns, cache));
        let last = last_of_each(&hidden, &columns);
        let shape = [targets.len(), self.sizes().vocab_size];
        self.logits(last).reshape(shape)
    }

    /// The most likely next token again and again, from `start` on: for each source the tokens after `start`,
    /// up to the first of the configuration's `eos_token_ids`, which is not in it, or to `at_most` tokens.
    ///
    /// # Panics
    ///
    /// If `at_most` with `start` exceeds the context, or `start` is not below `vocab_size`.
    pub fn greedy(
        &self,
        source: &Source,
        start: u32,
        at_most: usize,
        device: &Device,
    ) -> Vec<Vec<u32>> {
        let sizes = self.sizes();
        assert!(
            at_most <= sizes.seq_len && (start as usize) < sizes.vocab_size,
            "greedy: {at_most} tokens from {start}, context {}, vocabulary {}",
            sizes.seq_len,
            sizes.vocab_size
        );
        let mut cache = self.cache(source, Precision::F32);
        let mut next: Vec<Option<u32>> = vec![Some(start); source.lengths().len()];
        let mut texts = vec![Vec::new(); next.len()];
        for _ in 0..at_most {
            if next.iter().all(Option::is_none) {
                break;
            }
            let logits = self.decode(&next, &mut cache, device);
            let best = logits.argmax(1).try_into_vec_as::<i64>();
            let best = best.expect("invariant: indices can be read as i64");
            for ((next, text), best) in next.iter_mut().zip(&mut texts).zip(best) {
                let best = u32::try_from(best).expect("invariant: an index of the vocabulary");
                *next = next.filter(|_| !sizes.eos_token_ids.contains(&best));
                if let Some(next) = next {
                    *next = best;
                    text.push(best);
                }
            }
        }
        texts
    }
}
