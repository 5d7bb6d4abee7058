//! The gated feed-forward layer, `W_down (silu(W_gate x) * W_up x)`.
//!
//! Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{linear, swiglu};

/// Three bias-free projections.
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `d_model` to `d_ff`.
    pub gate_proj: Linear,
    /// `d_model` to `d_ff`.
    pub up_proj: Linear,
    /// `d_ff` to `d_model`.
    pub down_proj: Linear,
}

impl SwiGlu {
    /// Newly initialised projections between widths `d_model` and `d_ff`.
    pub fn init(d_model: usize, d_ff: usize, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        Self {
            gate_proj: linear(d_model, d_ff),
            up_proj: linear(d_model, d_ff),
            down_proj: linear(d_ff, d_model),
        }
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
        let gate = linear(x.clone(), self.gate_proj.weight.val());
        let up = linear(x, self.up_proj.weight.val());
        swiglu(gate, up)
    }

    /// The output for hidden activations.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_ff]`
    /// - output: `[batch, seq, d_model]`
    pub fn down(&self, hidden: Tensor<3>) -> Tensor<3> {
        linear(hidden, self.down_proj.weight.val())
    }
}
