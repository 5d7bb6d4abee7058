//! Decoding: new tokens with a KV cache, equal to the full pass.
//!
//! A layer evaluates its block `1 + r_n` times, or once per stage; each evaluation attends to the keys and
//! values that the same evaluation produced at earlier positions. So there is one cache for each (layer,
//! evaluation) pair. All other operations of a solver, such as mixing states with learned weights and
//! normalising them, act on each token separately and need no cache.
//!
//! Where corrections stop by a tolerance, a token that has settled is not evaluated again, but the keys and
//! values of its last evaluation stand in the caches of those that it does not take. Later tokens that
//! take them attend to these, in decoding as in the full pass.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::{Block, BlockCache, CacheRow, LlamaBlock, Precision, Tokens};
use iiet_kernels::on_workers;
use iiet_ode::{Layer, NetworkSolver};

use crate::{CorrectionCount, LanguageModel, Pass, token_ids};

/// Prompt tokens per prefill pass: enough for efficient matrix products, few enough that intermediate values
/// stay in cache.
const CHUNK: usize = 512;

/// The KV cache of a batch of texts, for all layers.
#[derive(Debug, Clone)]
pub struct Cache<B: Block = LlamaBlock> {
    /// By layer and evaluation.
    layers: Vec<Vec<B::Cache>>,
    /// Number of tokens of each row.
    lengths: Vec<usize>,
    stored: Precision,
    corrections: CorrectionCount,
}

impl<B: Block> Cache<B> {
    /// How many corrections the tokens took that passed since this was last asked; nothing is counted
    /// where corrections do not stop by a tolerance.
    pub fn take_corrections(&mut self) -> CorrectionCount {
        std::mem::take(&mut self.corrections)
    }

    /// The number of tokens of each row of the batch.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The dtype of the keys and values.
    pub fn stored(&self) -> Precision {
        self.stored
    }

    /// The capacity of each row, in tokens.
    pub fn capacity(&self) -> usize {
        let first = self.layers.first().and_then(|layer| layer.first());
        first.map_or(0, B::Cache::capacity)
    }

    /// For texts that are empty yet, in a model that evaluates its layers so many times each.
    pub(crate) fn empty(evaluations: &[usize], batch: usize, stored: Precision) -> Self {
        let evaluations = evaluations.iter();
        Self {
            layers: evaluations
                .map(|n| vec![B::Cache::new(stored); *n])
                .collect(),
            lengths: vec![0; batch],
            stored,
            corrections: CorrectionCount::default(),
        }
    }

    /// Where new tokens stand, given their columns in ids of such a shape.
    pub(crate) fn rows(&self, tokens: &[Range<usize>], [batch, _]: [usize; 2]) -> Vec<CacheRow> {
        assert!(
            tokens.len() == batch && self.lengths.len() == batch,
            "extend: {batch} rows of ids, {} of ranges, {} in the cache",
            tokens.len(),
            self.lengths.len()
        );
        let rows = tokens.iter().zip(&self.lengths);
        rows.map(|(tokens, cached)| CacheRow {
            from: tokens.start,
            count: tokens.len(),
            cached: *cached,
        })
        .collect()
    }

    /// A pass over new tokens, which are then in the cache.
    pub(crate) fn pass<T>(
        &mut self,
        tokens: &[Range<usize>],
        context: B::Context,
        through: impl FnOnce(&mut Pass<'_, B>) -> T,
    ) -> T {
        let depth = self.layers.len();
        let mut pass = Pass {
            caches: Some(self.layers.as_mut_slice()),
            ..Pass::over(context)
        };
        let passed = through(&mut pass);
        let count = CorrectionCount::of(&pass.corrections, tokens, depth);
        self.corrections += count;
        for (length, tokens) in self.lengths.iter_mut().zip(tokens) {
            *length += tokens.len();
        }
        passed
    }

    /// Keeps these rows of the batch, in this order.
    ///
    /// # Panics
    ///
    /// If an index is out of range.
    pub fn keep_rows(&mut self, rows: &[usize]) {
        self.lengths = rows.iter().map(|row| self.lengths[*row]).collect();
        let tokens = self.lengths.iter().copied().max().unwrap_or(0);
        for cache in self.layers.iter_mut().flatten() {
            cache.keep_rows(rows, tokens);
        }
    }

    /// Replaces a row by the only row of another cache of the same model.
    ///
    /// # Panics
    ///
    /// If the index is out of range, or the other cache does not have exactly one row.
    pub fn put_row(&mut self, row: usize, other: Self) {
        assert_eq!(
            other.lengths.len(),
            1,
            "put_row: the other cache must have one row"
        );
        self.lengths[row] = other.lengths[0];
        let others = other.layers.into_iter().flatten();
        for (cache, other) in self.layers.iter_mut().flatten().zip(others) {
            cache.put_row(row, other);
        }
    }

    /// Appends the rows of another cache of the same model.
    ///
    /// # Panics
    ///
    /// If one of them has empty rows.
    pub fn append(&mut self, other: Self) {
        let has_tokens = |lengths: &[usize]| lengths.iter().all(|tokens| *tokens > 0);
        assert!(
            has_tokens(&self.lengths) && has_tokens(&other.lengths),
            "append: a row has no tokens"
        );
        self.lengths.extend(other.lengths);
        let others = other.layers.into_iter().flatten();
        for (cache, other) in self.layers.iter_mut().flatten().zip(others) {
            cache.append(other);
        }
    }
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// An empty cache for a batch of texts.
    pub fn cache(&self, batch: usize, stored: Precision) -> Cache<B> {
        let layers = Layer::all(self.sizes().n_layers);
        let evaluations: Vec<usize> = layers
            .map(|layer| self.model.solver.evaluations(layer))
            .collect();
        Cache::empty(&evaluations, batch, stored)
    }

    /// The normalised hidden states of new tokens, which are added to the cache.
    ///
    /// They equal those of [`hidden`](Self::hidden) over the whole text, however the texts are split. In row
    /// b only the columns `tokens[b]` are tokens; the others are padding, on either side, and their hidden
    /// states are meaningless. Padding has no position and is not cached.
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
        cache: &mut Cache<B>,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let rows = cache.rows(tokens, ids.dims());
        let limit = self.sizes().seq_len;
        let context = self.context(Tokens::New { rows, seq, limit }, &ids.device());
        cache.pass(tokens, context, |pass| self.hidden_in(ids, pass))
    }

    /// The logits of one more token for each row.
    ///
    /// # Shapes
    ///
    /// - ids: one per row of the batch
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    ///
    /// The same as for [`extend`](Self::extend).
    pub fn decode(&self, ids: &[u32], cache: &mut Cache<B>, device: &Device) -> Tensor<2> {
        let ids: Vec<Option<u32>> = ids.iter().copied().map(Some).collect();
        self.decode_some(&ids, cache, device)
    }

    /// The same as [`decode`](Self::decode) for the rows that have a token; the others are unchanged, and
    /// their logits are meaningless.
    pub fn decode_some(
        &self,
        ids: &[Option<u32>],
        cache: &mut Cache<B>,
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

    /// Prefills the cache with texts of any lengths, in chunks, and returns the logits after each text's last
    /// token.
    ///
    /// # Shapes
    ///
    /// - texts: one for each row of the batch
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    ///
    /// If a text is empty, or the number of rows differs from the cache's.
    pub fn prefill(&self, texts: &[&[u32]], cache: &mut Cache<B>, device: &Device) -> Tensor<2> {
        assert!(
            texts.iter().all(|text| !text.is_empty()),
            "prefill: a text is empty"
        );
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut last: Vec<Option<Tensor<3>>> = vec![None; texts.len()];
        for from in (0..longest).step_by(CHUNK) {
            let seq = (longest - from).min(CHUNK);
            let part = |text: &&[u32]| text.len().min(from)..text.len().min(from + seq);
            let mut ids = vec![0; texts.len() * seq];
            for (row, text) in ids.chunks_exact_mut(seq).zip(texts) {
                let part = &text[part(text)];
                row[..part.len()].copy_from_slice(part);
            }
            let columns: Vec<Range<usize>> = texts.iter().map(|text| 0..part(text).len()).collect();
            let ids = token_ids(&ids, [texts.len(), seq], device);
            let hidden = on_workers(|| self.extend(ids, &columns, cache));
            for (b, text) in texts.iter().enumerate() {
                if !part(text).is_empty() && part(text).end == text.len() {
                    let end = hidden.clone().narrow(0, b, 1);
                    last[b] = Some(end.narrow(1, columns[b].end - 1, 1));
                }
            }
        }
        let last: Vec<Tensor<3>> = last.into_iter().flatten().collect();
        let logits = self.logits(Tensor::cat(last, 0));
        logits.reshape([texts.len(), self.sizes().vocab_size])
    }
}

/// The states of the last token of each row, `[batch, 1, d_model]`; each has one.
pub(crate) fn last_of_each(hidden: &Tensor<3>, columns: &[Range<usize>]) -> Tensor<3> {
    let rows = columns.iter().enumerate().map(|(b, columns)| {
        let row = hidden.clone().narrow(0, b, 1);
        row.narrow(1, columns.end - 1, 1)
    });
    Tensor::cat(rows.collect(), 0)
}
