//! Whole layers that are left out: those that change the direction of the states least.
//!
//! Men et al., *ShortGPT* (arXiv 2403.03853), equation 1, for each layer `1 - cos(y_{n-1}, y_n)`, the mean over
//! tokens. A layer here is a step of the solver, with all its evaluations.

use burn::tensor::{Int, Tensor};
use iiet_blocks::Block;
use iiet_compress::CompressError;
use iiet_compress::prune::BlockInfluence;
use iiet_ode::{Layer, NetworkSolver, Trajectory};

use super::of_matrix;
use crate::checkpoint::values_of;
use crate::walk::Observer;
use crate::{Backbone, LanguageModel, ModelError};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// The influence of each layer on the states of some texts, from 0 to 2. `progress` is called with the number
    /// of completed texts and their total.
    ///
    /// # Shapes
    ///
    /// - texts: `[batch, seq]` each, without padding, ids below `vocab_size`
    ///
    /// # Errors
    ///
    /// [`ModelError::Compress`] for states that are not finite; without texts.
    pub fn block_influence(
        &self,
        texts: &[Tensor<2, Int>],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<f64>, ModelError> {
        let depth = self.sizes().n_layers;
        let mut watch = Watch {
            d_model: self.sizes().d_model,
            influences: vec![BlockInfluence::new(); depth],
            before: Vec::new(),
            fault: None,
        };
        for (n, ids) in texts.iter().enumerate() {
            progress(n, texts.len());
            self.walk(
                self.start(ids.clone()),
                depth,
                &mut self.pass(ids),
                &mut watch,
            );
        }
        progress(texts.len(), texts.len());
        if let Some((layer, error)) = watch.fault {
            return Err(of_matrix(&format!("layer {layer}"))(error));
        }
        let values = watch.influences.iter().map(BlockInfluence::value);
        let values: Option<Vec<f64>> = values.collect();
        values.ok_or_else(|| {
            of_matrix("layers")(CompressError::Option {
                option: "the number of calibration inputs",
                found: "0".into(),
                allowed: "at least 1",
            })
        })
    }

    /// The model with only some of its layers, in their order. A history keeps the weights between them.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`](crate::ModelConfig::validate), for no layers.
    ///
    /// # Panics
    ///
    /// If a layer does not exist, or they are out of order.
    pub fn keeping(&self, layers: &[Layer]) -> Result<Self, ModelError> {
        assert!(
            layers.is_sorted() && layers.last() < Some(&Layer::at(self.sizes().n_layers)),
            "keeping: {layers:?} of {} layers",
            self.sizes().n_layers
        );
        let of = &self.model;
        let blocks = layers.iter().map(|layer| of.layers[layer.index()].clone());
        let model = Backbone {
            embed_tokens: of.embed_tokens.clone(),
            layers: blocks.collect(),
            solver: of.solver.keeping(layers),
            norm: of.norm.clone(),
        };
        let shorter = self.with_backbone(model);
        let config = shorter.config();
        config.validate()?;
        Ok(shorter)
    }

    /// The model without the layers of the smallest influence on some texts, that many of them; and which these
    /// are.
    ///
    /// # Errors
    ///
    /// The errors of [`block_influence`](Self::block_influence); [`ModelError::Config`] if no layer would be left.
    pub fn without_layers(
        &self,
        count: usize,
        texts: &[Tensor<2, Int>],
        progress: impl FnMut(usize, usize),
    ) -> Result<(Self, Vec<Layer>), ModelError> {
        let depth = self.sizes().n_layers;
        if count >= depth {
            return Err(ModelError::Config {
                key: "the number of layers to leave out",
                found: count.to_string(),
                allowed: format!("allowed: at most {}", depth - 1),
            });
        }
        let influence = self.block_influence(texts, progress)?;
        let mut order: Vec<Layer> = Layer::all(depth).collect();
        order.sort_by(|a, b| influence[a.index()].total_cmp(&influence[b.index()]));
        let (left_out, kept) = order.split_at_mut(count);
        left_out.sort();
        kept.sort();
        Ok((self.keeping(kept)?, left_out.to_vec()))
    }
}

/// Compares the states before and after each layer.
struct Watch {
    d_model: usize,
    influences: Vec<BlockInfluence>,
    before: Vec<f32>,
    fault: Option<(Layer, CompressError)>,
}

impl<M> Observer<M> for Watch {
    fn before(&mut self, at: &Trajectory<Tensor<3>, M>) {
        self.before = values_of(&at.y);
    }

    fn after(&mut self, layer: Layer, y: &Tensor<3>) {
        let influence = &mut self.influences[layer.index()];
        let added = influence.add(&self.before, &values_of(y), self.d_model);
        if let Err(error) = added {
            self.fault.get_or_insert((layer, error));
        }
    }
}
