//! An encoder-decoder: two stacks of layers, each with a solver of its own, under one embedding.
//!
//! ```text
//! m      = RMSNorm(y_N) of the encoder, from y_0 = E[source]      every token of a source sees every other
//! logits = RMSNorm(y_N) E^T of the decoder, from y_0 = E[ids]     causal, and attends to m in every layer
//! ```
//!
//! The encoder's layers are LLaMA's, the decoder's have cross-attention too ([`CrossedBlock`]). Any solver
//! integrates either side, with a schedule and a history of its own. Padding of a source is never attended
//! to; its hidden states mean nothing.

mod by_layers;
mod config;
mod cost;
mod decoding;
mod objective;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::{
    Block, CrossedBlock, CrossedConfig, CrossedContext, Dropout, LlamaBlock, Memory, Tokens,
    Visibility,
};
use iiet_kernels::in_f32;
use iiet_ode::{NetworkSolver, Parameter, Parameters, Role};

pub use self::config::{EncoderDecoderConfig, Side, StackConfig};
pub use self::cost::{EncoderDecoderCost, SequenceInference};
pub use self::decoding::SourceCache;
use crate::init::initialised;
use crate::names::check_declarations;
use crate::stack::Stack;
use crate::{ModelError, Pass, TokenEmbedding, token_ids};

/// Why a pass without dropout never fails.
const PLAIN: &str = "invariant: a pass without dropout is always possible";

/// A sequence-to-sequence model.
#[derive(Module, Debug)]
pub struct EncoderDecoder {
    /// `E`, of the source, the target and the output.
    pub shared: TokenEmbedding,
    /// From the source to m.
    pub encoder: Stack<LlamaBlock>,
    /// From the target, and m, to the next tokens.
    pub decoder: Stack<CrossedBlock>,
    /// The configuration; the solvers' options are read from the solvers.
    #[module(skip)]
    sizes: EncoderDecoderConfig,
}

/// A batch of texts to be encoded; shorter ones are padded at their end.
#[derive(Debug, Clone)]
pub struct Source {
    ids: Tensor<2, Int>,
    lengths: Vec<usize>,
}

impl Source {
    /// Texts that are padded already, and their lengths in tokens.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`, those of padding too
    ///
    /// # Panics
    ///
    /// If there is not one length for each row, from 1 to seq.
    pub fn new(ids: Tensor<2, Int>, lengths: Vec<usize>) -> Self {
        let [batch, seq] = ids.dims();
        assert!(
            lengths.len() == batch && lengths.iter().all(|n| (1..=seq).contains(n)),
            "a source [{batch}, {seq}] cannot have the lengths {lengths:?}"
        );
        Self { ids, lengths }
    }

    /// Texts of any lengths, padded with the id 0.
    ///
    /// # Panics
    ///
    /// If there is no text, or one is empty.
    pub fn of(texts: &[&[u32]], device: &Device) -> Self {
        let (ids, shape) = padded(texts);
        let lengths = texts.iter().map(|text| text.len()).collect();
        Self::new(token_ids(&ids, shape, device), lengths)
    }

    /// `[batch, seq]`
    pub fn ids(&self) -> &Tensor<2, Int> {
        &self.ids
    }

    /// The same texts without autodiff.
    pub fn inner(&self) -> Self {
        Self {
            ids: self.ids.clone().inner(),
            lengths: self.lengths.clone(),
        }
    }

    /// The tokens of each text.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
}

/// Texts of any lengths as rows of the longest, padded with the id 0 at their end; and the shape `[batch,
/// seq]`.
pub fn padded(texts: &[&[u32]]) -> (Vec<u32>, [usize; 2]) {
    let seq = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut ids = vec![0; texts.len() * seq];
    for (row, text) in ids.chunks_exact_mut(seq.max(1)).zip(texts) {
        row[..text.len()].copy_from_slice(text);
    }
    (ids, [texts.len(), seq])
}

impl EncoderDecoder {
    /// A model with zero matrices, to be filled from a checkpoint or by [`init`](Self::init).
    ///
    /// Memory for parameters is allocated when they are first used.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn empty(config: &EncoderDecoderConfig, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let EncoderDecoderConfig {
            vocab_size,
            d_model,
            ref block,
            ref encoder,
            ref decoder,
            ..
        } = *config;
        let crossed = CrossedConfig(block.clone());
        let model = Self {
            shared: TokenEmbedding::empty(vocab_size, d_model, device),
            encoder: Stack::empty(block, &encoder.solver, encoder.n_layers, d_model, device),
            decoder: Stack::empty(&crossed, &decoder.solver, decoder.n_layers, d_model, device),
            sizes: config.clone(),
        };
        check_declarations(&model)?;
        Ok(model)
    }

    /// A newly initialised model: a matrix depends on the RNG seed and on its own name only.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn init(
        config: &EncoderDecoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let model = Self::empty(config, device)?;
        Ok(initialised(model, config.initializer_range, seed, device))
    }

    /// The model's configuration, with the solvers' current options.
    pub fn config(&self) -> EncoderDecoderConfig {
        let mut config = self.sizes.clone();
        config.encoder.solver = self.encoder.solver.options();
        config.decoder.solver = self.decoder.solver.options();
        config
    }

    /// The configuration that the model was built with.
    pub fn sizes(&self) -> &EncoderDecoderConfig {
        &self.sizes
    }

    /// m, the encoder's normalised output.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - output: `[batch, source, d_model]`
    pub fn encode(&self, source: &Source) -> Tensor<3> {
        let encoded = self.through_encoder(source, None, &mut ());
        encoded.expect(PLAIN).0
    }

    pub(crate) fn encoder_pass<'a>(&self, source: &Source) -> Pass<'a, LlamaBlock> {
        let [_, seq] = source.ids.dims();
        let lengths = source.lengths.clone();
        let tokens = Tokens::Source { lengths, seq };
        let (config, device) = (&self.sizes, source.ids.device());
        let context = LlamaBlock::context(&config.block, config.d_model, tokens, &device);
        Pass::over(context)
    }

    /// The decoder's normalised hidden states, before the output projection.
    ///
    /// Targets of unequal length are padded at their end: no earlier token sees the padding, whose own
    /// states mean nothing.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[batch, target, d_model]`
    pub fn hidden(&self, source: &Source, ids: Tensor<2, Int>) -> Tensor<3> {
        self.hidden_with(source, ids, None).expect(PLAIN)
    }

    /// [`hidden`](Self::hidden) with dropout on both sides, if there is one.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[batch, target, d_model]`
    ///
    /// # Errors
    ///
    /// None for rates that [`Dropout::new`] accepts: both sides are passes over whole texts.
    pub fn hidden_with(
        &self,
        source: &Source,
        ids: Tensor<2, Int>,
        dropout: Option<&Dropout>,
    ) -> Result<Tensor<3>, ModelError> {
        let (states, _) = self.through_encoder(source, dropout, &mut ())?;
        let (hidden, _) = self.through_decoder(source, (states, ids), dropout, &mut ())?;
        Ok(hidden)
    }

    /// The decoder's pass over these targets, given m.
    pub(crate) fn decoder_pass<'a>(
        &self,
        source: &Source,
        memory: Tensor<3>,
        ids: &Tensor<2, Int>,
    ) -> Pass<'a, CrossedBlock> {
        let [_, seq] = ids.dims();
        let memory = Memory::States {
            states: memory,
            visible: Visibility::keys(source.lengths.as_slice()),
        };
        Pass::over(self.context(Tokens::Whole { seq }, memory, &ids.device()))
    }

    /// Logits of the next token at every position of the target.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`
    /// - output: `[batch, target, vocab]`
    pub fn forward(&self, source: &Source, ids: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden(source, ids))
    }

    /// Projects the decoder's hidden states to logits, which are f32 in every precision.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, target, d_model]`
    /// - output: `[batch, target, vocab]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        in_f32(self.shared.project(hidden))
    }

    /// `E^T`, `[d_model, vocab]`; a packed one is widened to f32.
    pub fn projection(&self) -> Tensor<2> {
        self.shared.matrix().transpose()
    }

    /// `y_0` of either side.
    pub(crate) fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.shared.rows(ids)
    }

    /// What the decoder's layers share in a pass over these tokens.
    fn context(&self, tokens: Tokens, memory: Memory, device: &Device) -> CrossedContext {
        let config = CrossedConfig(self.sizes.block.clone());
        CrossedContext {
            memory: Some(memory),
            ..CrossedBlock::context(&config, self.sizes.d_model, tokens, device)
        }
    }
}

/// `model.shared.weight`, `model.encoder.layers.0...`, `model.decoder.history.weight`.
impl Parameters for EncoderDecoder {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        let (side, Parameter { name, role }) = match path {
            ["shared", .., "weight"] => {
                return Some(Parameter::new("model.shared.weight", Role::EMBEDDING));
            }
            ["encoder", path @ ..] => ("encoder", Stack::<LlamaBlock>::parameter(path)?),
            ["decoder", path @ ..] => ("decoder", Stack::<CrossedBlock>::parameter(path)?),
            _ => return None,
        };
        Some(Parameter::new(format!("model.{side}.{name}"), role))
    }
}
