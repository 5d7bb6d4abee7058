//! The solvers that configurations can name, and the module that is any of them.

use std::fmt::{self, Formatter};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    IterationSchedule, Layer, Memory, NetworkSolver, OdeError, Options, Parameter, Parameters,
    Solver, Trajectory, VectorField,
};

/// Writes the enum of options, the enum of memories, the enum of modules, and the dispatch.
macro_rules! solvers {
    ($($(#[$doc:meta])* $solver:ident,)+) => {
        /// A solver by name, with its options: `"explicit_euler"` in a configuration, or
        /// `{ name = "iterative_implicit_euler", iterations = 3 }`.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "name", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum SolverConfig {
            $($(#[$doc])* $solver(<crate::$solver as NetworkSolver>::Options),)+
        }

        /// The table of a configuration; a name alone is read by [`SolverConfig`] itself.
        #[derive(Deserialize)]
        #[serde(tag = "name", rename_all = "snake_case")]
        enum Table {
            $($solver(<crate::$solver as NetworkSolver>::Options),)+
        }

        impl From<Table> for SolverConfig {
            fn from(table: Table) -> Self {
                match table {
                    $(Table::$solver(options) => Self::$solver(options),)+
                }
            }
        }

        impl Options for SolverConfig {
            const NAMES: &'static [&'static str] =
                &[$(<<crate::$solver as NetworkSolver>::Options as Options>::NAMES[0],)+];

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$solver(options) => options.name(),)+
                }
            }

            fn named(name: &str) -> Result<Self, OdeError> {
                $(if <crate::$solver as NetworkSolver>::Options::NAMES.contains(&name) {
                    return Ok(Self::$solver(Default::default()));
                })+
                let (found, allowed) = (name.to_owned(), Self::NAMES.join(", "));
                Err(OdeError::Name { found, allowed })
            }

            fn omitted(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$solver(options) => options.omitted(),)+
                }
            }

            fn validate(&self, depth: usize) -> Result<(), OdeError> {
                match self {
                    $(Self::$solver(options) => options.validate(depth),)+
                }
            }

            fn check_training(&self) -> Result<(), OdeError> {
                match self {
                    $(Self::$solver(options) => options.check_training(),)+
                }
            }

            fn iterations(&self) -> Option<&IterationSchedule> {
                match self {
                    $(Self::$solver(options) => options.iterations(),)+
                }
            }

            fn iterations_mut(&mut self) -> Option<&mut IterationSchedule> {
                match self {
                    $(Self::$solver(options) => options.iterations_mut(),)+
                }
            }
        }

        /// Any of the solvers, as one module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum AnySolver {
            $($(#[$doc])* $solver(crate::$solver),)+
        }

        /// The memory of any of the solvers.
        #[derive(Debug, Clone)]
        #[allow(clippy::large_enum_variant)]
        pub enum AnyMemory<const D: usize> {
            $($(#[$doc])* $solver(<crate::$solver as Solver<Tensor<D>>>::Memory),)+
        }

        impl<const D: usize> Memory<Tensor<D>> for AnyMemory<D> {
            fn map(self, f: &mut dyn FnMut(Tensor<D>) -> Tensor<D>) -> Self {
                match self {
                    $(Self::$solver(memory) => Self::$solver(Memory::<Tensor<D>>::map(memory, f)),)+
                }
            }
        }

        impl<const D: usize> Solver<Tensor<D>> for AnySolver {
            type Memory = AnyMemory<D>;

            fn memory(&self) -> AnyMemory<D> {
                match self {
                    $(Self::$solver(solver) => AnyMemory::$solver(Solver::<Tensor<D>>::memory(solver)),)+
                }
            }

            fn step(
                &self,
                field: &mut impl VectorField<Tensor<D>>,
                at: Trajectory<Tensor<D>, AnyMemory<D>>,
                h: f64,
            ) -> Trajectory<Tensor<D>, AnyMemory<D>> {
                let Trajectory { y, layer, memory } = at;
                match (self, memory) {
                    $((Self::$solver(solver), AnyMemory::$solver(memory)) => {
                        let next = solver.step(field, Trajectory { y, layer, memory }, h);
                        let Trajectory { y, layer, memory } = next;
                        Trajectory { y, layer, memory: AnyMemory::$solver(memory) }
                    })+
                    _ => panic!("the memory of another solver"),
                }
            }

            fn step_watched(
                &self,
                field: &mut impl VectorField<Tensor<D>>,
                at: Trajectory<Tensor<D>, AnyMemory<D>>,
                h: f64,
                watch: &mut dyn FnMut(Tensor<D>),
            ) -> Trajectory<Tensor<D>, AnyMemory<D>> {
                let Trajectory { y, layer, memory } = at;
                match (self, memory) {
                    $((Self::$solver(solver), AnyMemory::$solver(memory)) => {
                        let at = Trajectory { y, layer, memory };
                        let next = solver.step_watched(field, at, h, watch);
                        let Trajectory { y, layer, memory } = next;
                        Trajectory { y, layer, memory: AnyMemory::$solver(memory) }
                    })+
                    _ => panic!("the memory of another solver"),
                }
            }

            fn evaluations(&self, layer: Layer) -> usize {
                match self {
                    $(Self::$solver(solver) => Solver::<Tensor<D>>::evaluations(solver, layer),)+
                }
            }

            fn recorded_evaluations(&self, layer: Layer) -> usize {
                match self {
                    $(Self::$solver(solver) => {
                        Solver::<Tensor<D>>::recorded_evaluations(solver, layer)
                    })+
                }
            }

            fn order(&self) -> Option<usize> {
                match self {
                    $(Self::$solver(solver) => Solver::<Tensor<D>>::order(solver),)+
                }
            }
        }

        impl Parameters for AnySolver {
            fn parameter(path: &[&str]) -> Option<Parameter> {
                let (variant, path) = path.split_first()?;
                match *variant {
                    $(stringify!($solver) => crate::$solver::parameter(path),)+
                    _ => None,
                }
            }
        }

        impl NetworkSolver for AnySolver {
            type Options = SolverConfig;

            fn init(
                config: &SolverConfig,
                depth: usize,
                d_model: usize,
                device: &Device,
            ) -> Self {
                match config {
                    $(SolverConfig::$solver(options) => {
                        Self::$solver(NetworkSolver::init(options, depth, d_model, device))
                    })+
                }
            }

            fn options(&self) -> SolverConfig {
                match self {
                    $(Self::$solver(solver) => SolverConfig::$solver(solver.options()),)+
                }
            }

            fn adopt(&mut self, config: &SolverConfig) {
                match (self, config) {
                    $((Self::$solver(solver), SolverConfig::$solver(options)) => {
                        solver.adopt(options);
                    })+
                    // Another solver has other parameters.
                    _ => {}
                }
            }

            fn keeping(&self, layers: &[Layer]) -> Self {
                match self {
                    $(Self::$solver(solver) => Self::$solver(solver.keeping(layers)),)+
                }
            }
        }
    };
}

solvers! {
    /// Transformer++, the LLaMA layer.
    ExplicitEuler,
    /// ODE Transformer.
    RungeKutta,
    /// PCformer.
    PredictorCorrector,
    /// Textbook implicit Euler.
    ImplicitEuler,
    /// IIET.
    IterativeImplicitEuler,
    /// Two-step Adams-Bashforth.
    AdamsBashforth,
}

impl Default for SolverConfig {
    /// Explicit Euler: a configuration without a solver is a LLaMA.
    fn default() -> Self {
        Self::ExplicitEuler(Default::default())
    }
}

impl<'de> Deserialize<'de> for SolverConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = SolverConfig;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a solver, or a table with its name and options")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<SolverConfig, E> {
                SolverConfig::named(name).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SolverConfig, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(SolverConfig::from)
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}
