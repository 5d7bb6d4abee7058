//! A model's matrices by name, for what replaces them: packed weights and pruning.

use iiet_blocks::{Block, Projection};
use iiet_ode::NetworkSolver;

use crate::{EncoderDecoder, LanguageModel, TokenEmbedding};

/// A model that lists its projections and its embedding.
pub trait Projections {
    /// The projections with their names in checkpoints, such as `model.layers.0.mlp.up_proj`: those of the
    /// layers in their order, then an output projection that is not the embedding.
    fn projections(&self) -> Vec<(String, &Projection)>;

    /// The same, to be changed.
    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)>;

    /// The embedding and its name in checkpoints.
    fn embedding(&self) -> (&'static str, &TokenEmbedding);

    /// The same, to be changed.
    fn embedding_mut(&mut self) -> (&'static str, &mut TokenEmbedding);

    /// Whether any matrix has 8 or 4 bits.
    fn is_packed(&self) -> bool {
        let (_, embedding) = self.embedding();
        let packed = |(_, projection): &(String, &Projection)| projection.packed().is_some();
        embedding.packed().is_some() || self.projections().iter().any(packed)
    }
}

/// The name of the output projection in checkpoints.
pub(crate) const HEAD: &str = "lm_head";

impl<B: Block, S: NetworkSolver> Projections for LanguageModel<B, S> {
    fn projections(&self) -> Vec<(String, &Projection)> {
        let mut all = of_layers("model", &self.model.layers);
        all.extend(self.lm_head.iter().map(|head| (HEAD.to_owned(), head)));
        all
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let mut all = of_layers_mut("model", &mut self.model.layers);
        all.extend(self.lm_head.iter_mut().map(|head| (HEAD.to_owned(), head)));
        all
    }

    fn embedding(&self) -> (&'static str, &TokenEmbedding) {
        ("model.embed_tokens", &self.model.embed_tokens)
    }

    fn embedding_mut(&mut self) -> (&'static str, &mut TokenEmbedding) {
        ("model.embed_tokens", &mut self.model.embed_tokens)
    }
}

impl Projections for EncoderDecoder {
    fn projections(&self) -> Vec<(String, &Projection)> {
        let mut all = of_layers("model.encoder", &self.encoder.layers);
        all.extend(of_layers("model.decoder", &self.decoder.layers));
        all
    }

    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let mut all = of_layers_mut("model.encoder", &mut self.encoder.layers);
        all.extend(of_layers_mut("model.decoder", &mut self.decoder.layers));
        all
    }

    fn embedding(&self) -> (&'static str, &TokenEmbedding) {
        ("model.shared", &self.shared)
    }

    fn embedding_mut(&mut self) -> (&'static str, &mut TokenEmbedding) {
        ("model.shared", &mut self.shared)
    }
}

fn of_layers<'a, B: Block>(name: &str, layers: &'a [B]) -> Vec<(String, &'a Projection)> {
    let layers = layers.iter().enumerate();
    let all = layers.flat_map(|(n, block)| {
        let of_layer = block.projections().into_iter();
        of_layer.map(move |(of_block, projection)| (n, of_block, projection))
    });
    all.map(|(n, of_block, projection)| (format!("{name}.layers.{n}.{of_block}"), projection))
        .collect()
}

fn of_layers_mut<'a, B: Block>(
    name: &str,
    layers: &'a mut [B],
) -> Vec<(String, &'a mut Projection)> {
    let layers = layers.iter_mut().enumerate();
    let all = layers.flat_map(|(n, block)| {
        let of_layer = block.projections_mut().into_iter();
        of_layer.map(move |(of_block, projection)| (n, of_block, projection))
    });
    all.map(|(n, of_block, projection)| (format!("{name}.layers.{n}.{of_block}"), projection))
        .collect()
}
