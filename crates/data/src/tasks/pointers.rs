//! `task:pointers`, repeated application of a random function that the context gives.
//!
//! ```text
//! inputs    >  ..  >    a f(a)  b f(b)  ..    |    c  a  ..        k markers, pairs, all nodes
//! targets                                          f^k(c) f^k(a) ..
//! ```
//!
//! Pairs and queries stand in random orders; the targets of the queries have weight 1. Following k
//! pointers takes k steps one after the other, or log k if the function is composed with itself. A random
//! function leads most nodes to a few cycles; a permutation never loses any.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Difficulties, Example, Judged, Task};
use crate::batches::below;
use crate::error::DataError;

/// The options of `task:pointers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pointers {
    /// k, how often the function is applied.
    pub hops: Difficulties,
    /// The nodes that it maps to each other, 2 to 4096.
    pub nodes: usize,
    /// Whether it is one to one.
    pub permutation: bool,
}

impl Default for Pointers {
    fn default() -> Self {
        Self {
            hops: Difficulties::Range([1, 4]),
            nodes: 16,
            permutation: false,
        }
    }
}

const MARKER: u32 = 0;
const SEPARATOR: u32 = 1;
/// The id of node 0.
const NODES: u32 = 2;

impl Task for Pointers {
    fn name(&self) -> &'static str {
        "pointers"
    }

    fn difficulty_key(&self) -> &'static str {
        "data.source.hops"
    }

    fn difficulties(&self) -> Difficulties {
        self.hops
    }

    fn difficulties_mut(&mut self) -> &mut Difficulties {
        &mut self.hops
    }

    fn allowed(&self) -> RangeInclusive<usize> {
        1..=4096
    }

    fn check(&self) -> Result<(), DataError> {
        match self.nodes {
            2..=4096 => Ok(()),
            found => Err(DataError::Config {
                key: "data.source.nodes",
                found: found.to_string(),
                allowed: "2 to 4096".to_owned(),
            }),
        }
    }

    fn symbols(&self) -> Vec<String> {
        let nodes = (0..self.nodes).map(|node| node.to_string());
        [">", "|"]
            .map(str::to_owned)
            .into_iter()
            .chain(nodes)
            .collect()
    }

    fn tokens(&self, hops: usize) -> usize {
        hops + 3 * self.nodes + 1
    }

    fn count(&self, _hops: usize) -> f64 {
        let nodes = self.nodes as f64;
        match self.permutation {
            true => (1..=self.nodes).map(|node| node as f64).product(),
            false => nodes.powf(nodes),
        }
    }

    fn judged(&self) -> Judged {
        Judged::Each
    }

    fn draw(&self, hops: usize, random: &mut ChaCha8Rng) -> Example {
        let nodes = self.nodes as u32;
        let function: Vec<u32> = match self.permutation {
            true => shuffled(nodes, random),
            false => (0..nodes).map(|_| below(random, nodes)).collect(),
        };
        let apply = |node: u32| function[node as usize];
        let power = |node: u32| (0..hops).fold(node, |node, _| apply(node));

        let mut inputs = vec![MARKER; hops];
        for node in shuffled(nodes, random) {
            inputs.extend([NODES + node, NODES + apply(node)]);
        }
        inputs.push(SEPARATOR);
        let before = inputs.len();
        let queries = shuffled(nodes, random);
        inputs.extend(queries.iter().map(|node| NODES + node));
        let results = queries.iter().map(|node| NODES + power(*node));
        let (none, one) = (vec![0.0; before], vec![1.0; queries.len()]);
        Example {
            targets: vec![MARKER; before].into_iter().chain(results).collect(),
            weights: [none, one].concat(),
            inputs,
            // A function that is held out is so for all powers and orders.
            key: function,
        }
    }
}

/// The numbers below `n` in a random order.
fn shuffled(n: u32, random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last as usize, below(random, last + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn targets_follow_the_pairs_of_the_context() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for permutation in [false, true] {
            for hops in [1, 2, 7] {
                let task = Pointers {
                    nodes: 9,
                    permutation,
                    ..Pointers::default()
                };
                let symbols = task.symbols();
                let example = task.draw(hops, &mut random);
                assert_eq!(example.inputs.len(), task.tokens(hops));
                let words: Vec<&str> = example
                    .inputs
                    .iter()
                    .map(|id| symbols[*id as usize].as_str())
                    .collect();
                let bar = words.iter().position(|word| *word == "|").unwrap();
                assert_eq!(words[..hops], vec![">"; hops]);
                let pairs = words[hops..bar].chunks(2);
                let function: BTreeMap<&str, &str> = pairs.map(|pair| (pair[0], pair[1])).collect();
                assert_eq!(function.len(), 9);
                let mut images: Vec<&&str> = function.values().collect();
                images.sort();
                images.dedup();
                assert_eq!(images.len() == 9, permutation);
                for (at, query) in words.iter().enumerate().skip(bar + 1) {
                    let mut node = *query;
                    for _ in 0..hops {
                        node = function[node];
                    }
                    assert_eq!(symbols[example.targets[at] as usize], node);
                    assert_eq!(example.weights[at], 1.0);
                }
                assert_eq!(example.weights[..=bar], vec![0.0; bar + 1]);
            }
        }
    }
}
