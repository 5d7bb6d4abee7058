//! `task:group`, the word problem of a finite group.
//!
//! ```text
//! inputs    g_1  g_2  ..  g_L        independent, uniform
//! targets   p_1  p_2  ..  p_L        p_t = g_1 g_2 .. g_t
//! ```
//!
//! A target at every place, all of weight 1. Saunshi et al. (2025, arXiv:2502.17416) and Merrill and
//! Sabharwal (2024, arXiv:2404.08819) use it to tell apart what depth can do.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Difficulties, Example, GroupName, Judged, Task};
use crate::batches::below;
use crate::error::DataError;

/// The options of `task:group`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// `"S3"`, `"A5"` or `"S5"`.
    pub group: GroupName,
    /// Elements of a word.
    pub length: Difficulties,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            group: GroupName::default(),
            length: Difficulties::One(32),
        }
    }
}

impl Task for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn difficulty_key(&self) -> &'static str {
        "data.source.length"
    }

    fn difficulties(&self) -> Difficulties {
        self.length
    }

    fn difficulties_mut(&mut self) -> &mut Difficulties {
        &mut self.length
    }

    fn allowed(&self) -> RangeInclusive<usize> {
        1..=1 << 16
    }

    fn check(&self) -> Result<(), DataError> {
        Ok(())
    }

    fn symbols(&self) -> Vec<String> {
        let group = self.group.group();
        let elements = 0..group.order() as u32;
        elements.map(|element| group.symbol(element)).collect()
    }

    fn tokens(&self, length: usize) -> usize {
        length
    }

    fn count(&self, length: usize) -> f64 {
        (self.group.group().order() as f64).powf(length as f64)
    }

    fn judged(&self) -> Judged {
        Judged::Last
    }

    fn draw(&self, length: usize, random: &mut ChaCha8Rng) -> Example {
        let group = self.group.group();
        let order = group.order() as u32;
        let inputs: Vec<u32> = (0..length).map(|_| below(random, order)).collect();
        let products = inputs.iter().scan(0, |product, element| {
            *product = group.product(*product, *element);
            Some(*product)
        });
        Example {
            targets: products.collect(),
            weights: vec![1.0; length],
            key: inputs.clone(),
            inputs,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn targets_are_products_of_permutations() {
        // By composing the images of points, not with the table.
        for name in [GroupName::S3, GroupName::A5, GroupName::S5] {
            let task = Group {
                group: name,
                ..Group::default()
            };
            let symbols = task.symbols();
            let points = if name == GroupName::S3 { 3 } else { 5 };
            // The image of each point under an element in cycles.
            let images = |symbol: &str| -> Vec<usize> {
                let mut images: Vec<usize> = (0..points).collect();
                for cycle in symbol.split(['(', ')']).filter(|cycle| !cycle.is_empty()) {
                    let cycle: Vec<usize> = match cycle {
                        "e" => Vec::new(),
                        cycle => cycle.bytes().map(|b| usize::from(b - b'1')).collect(),
                    };
                    for (at, point) in cycle.iter().enumerate() {
                        images[*point] = cycle[(at + 1) % cycle.len()];
                    }
                }
                images
            };
            let mut random = ChaCha8Rng::seed_from_u64(3);
            let example = task.draw(20, &mut random);
            let mut product: Vec<usize> = (0..points).collect();
            for (input, target) in example.inputs.iter().zip(&example.targets) {
                let factor = images(&symbols[*input as usize]);
                product = (0..points).map(|x| product[factor[x]]).collect();
                assert_eq!(images(&symbols[*target as usize]), product);
            }
        }
    }
}
