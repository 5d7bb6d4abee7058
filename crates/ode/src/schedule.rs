//! The number of corrections of each layer.

use serde::{Deserialize, Serialize};

use crate::{Layer, OdeError};

/// The number of fixed-point corrections `r_n` of layers n = 1..N.
///
/// Written as `3` or as `[3, 1, 0]`. Uniform in a model that is trained from scratch; one number per layer in
/// a distilled one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a number of corrections, or a list with one for each layer"
)]
pub enum IterationSchedule {
    /// The same r in every layer.
    Uniform(usize),
    /// `r_1, r_2, ..`
    PerLayer(Vec<usize>),
}

impl Default for IterationSchedule {
    /// Three corrections in every layer, as in the paper's main models.
    fn default() -> Self {
        Self::Uniform(3)
    }
}

impl IterationSchedule {
    /// The maximum number of corrections of a layer. Fixed-point iteration converges to machine precision
    /// much earlier, or not at all; each correction costs an evaluation of the block and a separate cache.
    pub const MAX_CORRECTIONS: usize = 4096;

    /// `r_n` of a layer.
    ///
    /// # Panics
    ///
    /// If the schedule has fewer layers, which [`check`](Self::check) rejects.
    pub fn at(&self, layer: Layer) -> usize {
        match self {
            Self::Uniform(r) => *r,
            Self::PerLayer(r) => r[layer.index()],
        }
    }

    /// One number for each of `depth` layers.
    pub fn per_layer(&self, depth: usize) -> Vec<usize> {
        Layer::all(depth).map(|layer| self.at(layer)).collect()
    }

    /// The schedule of a network that has only these layers.
    pub fn keeping(&self, layers: &[Layer]) -> Self {
        match self {
            Self::Uniform(r) => Self::Uniform(*r),
            Self::PerLayer(_) => {
                Self::PerLayer(layers.iter().map(|layer| self.at(*layer)).collect())
            }
        }
    }

    /// Checks that the schedule matches a network of `depth` layers.
    ///
    /// # Errors
    ///
    /// [`OdeError::ScheduleLength`] if it lists another number of layers, and [`OdeError::Corrections`] if a
    /// layer has more than [`MAX_CORRECTIONS`](Self::MAX_CORRECTIONS).
    pub fn check(&self, layers: usize) -> Result<(), OdeError> {
        let corrections = match self {
            Self::Uniform(r) => std::slice::from_ref(r),
            Self::PerLayer(r) if r.len() != layers => {
                return Err(OdeError::ScheduleLength {
                    found: r.len(),
                    layers,
                });
            }
            Self::PerLayer(r) => r,
        };
        match corrections.iter().max() {
            Some(&found) if found > Self::MAX_CORRECTIONS => Err(OdeError::Corrections { found }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_and_a_list() {
        let one: IterationSchedule = serde_json::from_str("3").unwrap();
        assert_eq!(one.per_layer(2), [3, 3]);
        let list: IterationSchedule = serde_json::from_str("[3, 1, 0]").unwrap();
        assert_eq!(list.per_layer(3), [3, 1, 0]);
        let error = serde_json::from_str::<IterationSchedule>("-1").unwrap_err();
        assert!(
            error.to_string().contains("a number of corrections"),
            "{error}"
        );
    }

    #[test]
    fn a_list_must_have_one_number_per_layer() {
        let list = IterationSchedule::PerLayer(vec![3, 1]);
        let error = list.check(3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "iterations lists 2 layers, the model has 3"
        );
        assert!(IterationSchedule::Uniform(7).check(3).is_ok());
    }
    #[test]
    fn more_than_4096_corrections_are_an_error() {
        let schedules = [
            ("4096", None),
            ("4097", Some("4097")),
            ("[0, 4096]", None),
            ("[9223372036854775807, 1]", Some("9223372036854775807")),
        ];
        for (text, refused) in schedules {
            let schedule: IterationSchedule = serde_json::from_str(text).unwrap();
            let message = schedule.check(2).err().map(|error| error.to_string());
            let expected = refused
                .map(|found| format!("iterations is {found} in a layer; allowed: 0 to 4096"));
            assert_eq!(message, expected, "{text}");
        }
        for text in ["18446744073709551616", "1e300", "[1, -1]", "1.5"] {
            let error = serde_json::from_str::<IterationSchedule>(text).unwrap_err();
            assert!(
                error.to_string().contains("a number of corrections"),
                "{text}: {error}"
            );
        }
    }
}
