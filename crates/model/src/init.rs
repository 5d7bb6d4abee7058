//! Weight initialisation.
//!
//! Parameters declared as [`Start::Normal`], such as every matrix of LLaMA, are normally distributed with
//! standard deviation `initializer_range`; the others, norms and solver coefficients, keep their neutral
//! values. A matrix depends only on the RNG seed and its own name, not on the backend, the order of creation
//! or other parameters.

use burn::module::{Module, Param};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Parameters, Role, Start};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Normal};

use crate::names::{ParameterMapper, map_parameters, with_value};
use crate::{ConfigOf, LanguageModel, ModelError};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// A newly initialised model.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`](crate::ModelConfig::validate).
    pub fn init(config: &ConfigOf<B, S>, seed: u64, device: &Device) -> Result<Self, ModelError> {
        let model = Self::empty(config, device)?;
        Ok(initialised(model, config.initializer_range, seed, device))
    }
}

/// An empty model with initial weights.
pub(crate) fn initialised<M: Module + Parameters>(
    model: M,
    range: f64,
    seed: u64,
    device: &Device,
) -> M {
    let normal = Normal::new(0.0, range as f32)
        .expect("invariant: validate() accepts only deviations that are finite in f32");
    let device = device.clone();
    let mut fill = Fill {
        seed,
        normal,
        device,
    };
    map_parameters(model, &mut fill)
}

struct Fill {
    seed: u64,
    normal: Normal<f32>,
    device: Device,
}

impl ParameterMapper for Fill {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        if role.start != Start::Normal {
            return parameter;
        }
        let shape: Shape = parameter.lazy_shape();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(stream_of(name));
        let values: Vec<f32> = (0..shape.num_elements())
            .map(|_| self.normal.sample(&mut random))
            .collect();
        let data = TensorData::new::<f32, _>(values, shape);
        with_value(parameter, data, &self.device)
    }
}

/// FNV-1a: the stream of the generator for a name.
fn stream_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
