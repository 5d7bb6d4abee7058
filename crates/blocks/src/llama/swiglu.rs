//! The gated feed-forward layer, `W_down (silu(W_gate x) * W_up x)`.
//!
//! Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6.

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use iiet_kernels::{fan_out, swiglu};

use crate::Projection;

/// Three bias-free projections.
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `d_model` to `d_ff`.
    pub gate_proj: Projection,
    /// `d_model` to `d_ff`.
    pub up_proj: Projection,
    /// `d_ff` to `d_model`.
    pub down_proj: Projection,
}

impl SwiGlu {
    /// Newly initialised projections between widths `d_model` and `d_ff`.
    pub fn init(d_model: usize, d_ff: usize, device: &Device) -> Self {
        let linear = |from, to| {
            let config = LinearConfig::new(from, to).with_bias(false);
            Projection::Dense(config.init(device))
        };
        Self {
            gate_proj: linear(d_model, d_ff),
            up_proj: linear(d_model, d_ff),
            down_proj: linear(d_ff, d_model),
        }
    }

    /// The projections with their names.
    pub(super) fn projections(&self) -> [(&'static str, &Projection); 3] {
        [
            ("gate_proj", &self.gate_proj),
            ("up_proj", &self.up_proj),
            ("down_proj", &self.down_proj),
        ]
    }

    /// The same, to be changed.
    pub(super) fn projections_mut(&mut self) -> [(&'static str, &mut Projection); 3] {
        [
            ("gate_proj", &mut self.gate_proj),
            ("up_proj", &mut self.up_proj),
            ("down_proj", &mut self.down_proj),
        ]
    }

    /// Applied to each token separately.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down(self.hidden(x))
    }

    /// The hidden activations, `silu(W_gate x) * W_up x`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_ff]`
    pub fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        let [to_gate, to_up] = fan_out(x);
        swiglu(self.gate_proj.forward(to_gate), self.up_proj.forward(to_up))
    }

    /// The output for hidden activations.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_ff]`
    /// - output: `[batch, seq, d_model]`
    pub fn down(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.down_proj.forward(hidden)
    }
}
