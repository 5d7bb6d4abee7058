//! A block from outside this workspace: a small mixture of experts with a load-balancing loss, with IIET as
//! the solver. Trained for a few steps, saved, loaded, and decoded with caches.
//!
//! ```text
//! u    = y + Attention(RMSNorm(y))
//! x    = RMSNorm(u),  p = softmax(x W_router)
//! G(y) = u + p_e E_e(x),   e = argmax p                    one of the experts for each token
//! loss + c * experts * sum_e f_e P_e                       f_e share of tokens, P_e mean of p
//! ```
//!
//! Fedus et al., *Switch Transformers* (arXiv 2101.03961), equations 2 and 4 to 6. For clarity every expert
//! computes every token; a practical implementation would gather.
//!
//! `cargo run --example own_block`

mod own;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use iiet_blocks::llama::{Attention, SwiGlu};
use iiet_blocks::{
    Block, BlockConfig, BlockCost, BlockError, Evaluation, KeyValueCache, LlamaConfig,
    LlamaContext, Tokens, normalise,
};
use iiet_ode::{AnySolver, Options, Parameter, Parameters, Role, SolverConfig, norm_parameter};
use serde::{Deserialize, Serialize};

/// The block's keys in `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MixtureConfig {
    num_attention_heads: usize,
    intermediate_size: usize,
    num_experts: usize,
    /// `c`, the weight of the load-balancing term.
    router_aux_loss_coef: f64,
}

impl MixtureConfig {
    fn attention(&self) -> LlamaConfig {
        LlamaConfig {
            d_ff: self.intermediate_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_attention_heads,
            ..LlamaConfig::default()
        }
    }
}

impl BlockConfig for MixtureConfig {
    const NAME: &'static str = "mixture";

    fn validate(&self, d_model: usize) -> Result<(), BlockError> {
        if !(1..=1024).contains(&self.num_experts) {
            return Err(BlockError::Value {
                key: "num_experts",
                found: self.num_experts.to_string(),
                allowed: "allowed: 1 to 1024".into(),
            });
        }
        self.attention().validate(d_model)
    }

    fn norm_eps(&self) -> f64 {
        self.attention().norm_eps()
    }

    fn cost(&self, d_model: usize, seq: usize) -> BlockCost {
        let dense = self.attention().cost(d_model, seq);
        let (experts, d_ff) = (self.num_experts, self.intermediate_size);
        // The experts beyond the one that a dense block has, and the router.
        let more = 2 * d_model * (3 * d_ff * (experts - 1) + experts);
        BlockCost {
            flops_per_token: dense.flops_per_token + more as f64,
            activations_per_token: dense.activations_per_token + (3 * d_ff * experts) as u64,
            ..dense
        }
    }
}

#[derive(Module, Debug)]
struct MixtureBlock {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    router: Linear,
    experts: Vec<SwiGlu>,
    #[module(skip)]
    balance: f64,
}

impl Block for MixtureBlock {
    type Config = MixtureConfig;
    type Context = LlamaContext;
    type Cache = KeyValueCache;

    fn init(config: &MixtureConfig, d_model: usize, device: &Device) -> Self {
        let norm = || {
            RmsNormConfig::new(d_model)
                .with_epsilon(config.norm_eps())
                .init(device)
        };
        let experts = config.num_experts;
        Self {
            input_layernorm: norm(),
            self_attn: Attention::init(&config.attention(), d_model, device),
            post_attention_layernorm: norm(),
            router: LinearConfig::new(d_model, experts)
                .with_bias(false)
                .init(device),
            experts: (0..experts)
                .map(|_| SwiGlu::init(d_model, config.intermediate_size, device))
                .collect(),
            balance: config.router_aux_loss_coef,
        }
    }

    fn context(
        config: &MixtureConfig,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> LlamaContext {
        LlamaContext::new(&config.attention().frequencies(d_model), tokens, device)
    }

    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let x = normalise(&self.input_layernorm, y.clone());
        let u = y + self.self_attn.forward(x, at.context, at.cache);
        let x = normalise(&self.post_attention_layernorm, u.clone());
        let p = softmax(self.router.forward(x.clone()), 2);
        let [batch, seq, experts] = p.dims();

        // `[batch, seq, experts]`: 1 for the expert with the largest p.
        let chosen = p.clone().equal(p.clone().max_dim(2).repeat_dim(2, experts));
        let chosen = chosen.float();
        let share = chosen.clone().mean_dim(1).mean_dim(0);
        let mean = p.clone().mean_dim(1).mean_dim(0);
        // Losses are sums over the batch's tokens.
        let factor = self.balance * experts as f64 * (batch * seq) as f64;
        at.terms.push((share * mean).sum() * factor);

        let weights = p * chosen;
        let outputs = self.experts.iter().enumerate().map(|(e, expert)| {
            let weight = weights.clone().narrow(2, e, 1);
            expert.forward(x.clone()) * weight
        });
        outputs.fold(u, |sum, output| sum + output)
    }
}

impl Parameters for MixtureBlock {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        let role = match path {
            [.., "weight"] => Role::PROJECTION,
            [norm, field] => {
                let name = format!("{norm}.{}", norm_parameter(field)?);
                return Some(Parameter::new(name, Role::COEFFICIENT));
            }
            _ => return None,
        };
        Some(Parameter::new(path.join("."), role))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let block = MixtureConfig {
        num_attention_heads: 2,
        intermediate_size: 32,
        num_experts: 4,
        router_aux_loss_coef: 0.01,
    };
    let solver = SolverConfig::named("iterative_implicit_euler")?;
    own::train_save_load_decode::<MixtureBlock, AnySolver>(block, solver)
}
