//! `task:addition`, sums of several numbers (n-ary addition in Saunshi et al., 2025,
//! arXiv:2502.17416).
//!
//! ```text
//! 3 1 5 + 1 2 0 + 0 4 5 = 0 4 8 0 END
//! ```
//!
//! Each token is predicted from those before it, as in text; what counts is the sum and its end. Terms
//! have leading zeros, and the sum as many digits as the largest sum of so many terms.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Difficulties, Example, Judged, Task};
use crate::batches::below;
use crate::error::DataError;

/// The options of `task:addition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Addition {
    /// Numbers to add.
    pub terms: Difficulties,
    /// Digits of each, 1 to 18.
    pub digits: usize,
}

impl Default for Addition {
    fn default() -> Self {
        Self {
            terms: Difficulties::Range([2, 4]),
            digits: 3,
        }
    }
}

/// Digits are their own ids.
const PLUS: u32 = 10;
const EQUALS: u32 = 11;
/// The end of a text comes after all symbols.
const END: u32 = 12;

impl Task for Addition {
    fn name(&self) -> &'static str {
        "addition"
    }

    fn difficulty_key(&self) -> &'static str {
        "data.source.terms"
    }

    fn difficulties(&self) -> Difficulties {
        self.terms
    }

    fn difficulties_mut(&mut self) -> &mut Difficulties {
        &mut self.terms
    }

    fn allowed(&self) -> RangeInclusive<usize> {
        2..=4096
    }

    fn check(&self) -> Result<(), DataError> {
        match self.digits {
            1..=18 => Ok(()),
            found => Err(DataError::Config {
                key: "data.source.digits",
                found: found.to_string(),
                allowed: "1 to 18".to_owned(),
            }),
        }
    }

    fn symbols(&self) -> Vec<String> {
        let digits = ('0'..='9').map(String::from);
        digits.chain(["+", "="].map(str::to_owned)).collect()
    }

    fn tokens(&self, terms: usize) -> usize {
        terms * (self.digits + 1) + self.digits_of_sum(terms)
    }

    /// Sums in another order are the same example: `(10^digits + terms - 1) choose terms`.
    fn count(&self, terms: usize) -> f64 {
        let numbers = 10f64.powf(self.digits as f64);
        let factors = (0..terms).map(|i| (numbers + i as f64) / (i + 1) as f64);
        factors.product::<f64>().round()
    }

    fn judged(&self) -> Judged {
        Judged::All
    }

    fn draw(&self, terms: usize, random: &mut ChaCha8Rng) -> Example {
        let digits: Vec<u32> = (0..terms * self.digits)
            .map(|_| below(random, 10))
            .collect();
        let sum: u128 = digits.chunks(self.digits).map(value).sum();
        let mut tokens = Vec::with_capacity(self.tokens(terms) + 1);
        for term in digits.chunks(self.digits) {
            tokens.extend(term);
            tokens.push(PLUS);
        }
        tokens.pop();
        tokens.push(EQUALS);
        let question = tokens.len();
        tokens.extend(spelled(sum, self.digits_of_sum(terms)));
        tokens.push(END);
        let weights = (1..tokens.len()).map(|target| match target < question {
            true => 0.0,
            false => 1.0,
        });
        let mut sorted: Vec<&[u32]> = digits.chunks(self.digits).collect();
        sorted.sort();
        Example {
            weights: weights.collect(),
            inputs: tokens[..tokens.len() - 1].to_vec(),
            targets: tokens[1..].to_vec(),
            key: sorted.concat(),
        }
    }
}

impl Addition {
    fn digits_of_sum(&self, terms: usize) -> usize {
        let largest = terms as u128 * (10u128.pow(self.digits as u32) - 1);
        largest.to_string().len()
    }
}

/// The number that has these digits.
fn value(digits: &[u32]) -> u128 {
    let add = |value, digit: &u32| 10 * value + u128::from(*digit);
    digits.iter().fold(0, add)
}

/// The digits of a number, with leading zeros.
fn spelled(number: u128, digits: usize) -> Vec<u32> {
    let powers = (0..digits as u32).rev().map(|power| 10u128.pow(power));
    powers.map(|power| (number / power % 10) as u32).collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn sums_are_those_of_u128() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for (terms, digits) in [(2, 1), (2, 3), (4, 3), (7, 18), (32, 3)] {
            let task = Addition {
                digits,
                ..Addition::default()
            };
            let symbols = [task.symbols(), vec!["END".to_owned()]].concat();
            let example = task.draw(terms, &mut random);
            assert_eq!(example.inputs.len(), task.tokens(terms));
            // As text: the inputs and the last target.
            let tokens = example.inputs.iter().chain(example.targets.last());
            let text: String = tokens.map(|id| symbols[*id as usize].as_str()).collect();
            let (question, answer) = text.split_once('=').unwrap();
            let addends = question.split('+').map(|term| {
                assert_eq!(term.len(), digits);
                term.parse::<u128>().unwrap()
            });
            assert_eq!(addends.clone().count(), terms);
            let sum: u128 = addends.sum();
            let answer = answer.strip_suffix("END").unwrap();
            assert_eq!(answer.parse::<u128>().unwrap(), sum);
            // What counts is the answer and its end, each predicted from the place before.
            let counted = example.weights.iter().filter(|weight| **weight == 1.0);
            assert_eq!(counted.count(), answer.len() + 1);
            assert_eq!(
                example.inputs[1..],
                example.targets[..example.targets.len() - 1]
            );
        }
    }

    #[test]
    fn the_order_of_terms_makes_no_other_example() {
        let task = Addition {
            terms: Difficulties::One(2),
            digits: 2,
        };
        assert_eq!(task.count(2), 5050.0);
        let mut keys = std::collections::HashSet::new();
        let mut random = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..100_000 {
            keys.insert(task.draw(2, &mut random).key);
        }
        assert_eq!(keys.len(), 5050);
    }
}
