//! `task:hops`, k-fold induction (Sanford, Hsu and Telgarsky, 2024, arXiv:2402.09268, definition of
//! `hop_k`; called p-hop in Saunshi et al., 2025, arXiv:2502.17416).
//!
//! ```text
//! find(i)   = max { j <= i : x_{j-1} = x_i }        the place after the last occurrence of x_i
//! hop_k(i)  = x at find(find(.. find(i)))           k times
//!
//! inputs    >  >  ..  >  x_1  x_2  ..  x_L           k markers
//! targets                hop_k(1)  ..  hop_k(L)      of weight 1 where there is one, else 0
//! ```
//!
//! Neighbours in x differ, for a repeated symbol is a fixed point of `find`, at which further hops
//! would change nothing. The last place always has a result. The number of hops is written in
//! markers, so that a trained model can be asked for more than it was trained with.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Difficulties, Example, Judged, Task};
use crate::batches::below;
use crate::error::DataError;

/// The options of `task:hops`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hops {
    /// k.
    pub hops: Difficulties,
    /// L, the symbols of the sequence.
    pub length: usize,
    /// How many different symbols there are, 3 to 26.
    pub alphabet: usize,
}

impl Default for Hops {
    fn default() -> Self {
        Self {
            hops: Difficulties::Range([1, 4]),
            length: 60,
            alphabet: 4,
        }
    }
}

/// The marker; symbols have the ids after it.
const MARKER: u32 = 0;

impl Task for Hops {
    fn name(&self) -> &'static str {
        "hops"
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

    /// A hop goes back by about as many places as there are symbols.
    fn allowed(&self) -> RangeInclusive<usize> {
        1..=self.length / self.alphabet
    }

    fn check(&self) -> Result<(), DataError> {
        let wrong = |key, found: usize, allowed: &str| {
            Err(DataError::Config {
                key,
                found: found.to_string(),
                allowed: allowed.to_owned(),
            })
        };
        if !(3..=26).contains(&self.alphabet) {
            return wrong("data.source.alphabet", self.alphabet, "3 to 26");
        }
        if !(self.alphabet..=1 << 16).contains(&self.length) {
            let allowed = "from data.source.alphabet to 65536";
            return wrong("data.source.length", self.length, allowed);
        }
        Ok(())
    }

    fn symbols(&self) -> Vec<String> {
        let letters = ('a'..='z').take(self.alphabet).map(String::from);
        [">".to_owned()].into_iter().chain(letters).collect()
    }

    fn tokens(&self, hops: usize) -> usize {
        hops + self.length
    }

    fn count(&self, _hops: usize) -> f64 {
        self.alphabet as f64 * (self.alphabet as f64 - 1.0).powf(self.length as f64 - 1.0)
    }

    fn judged(&self) -> Judged {
        Judged::Each
    }

    fn draw(&self, hops: usize, random: &mut ChaCha8Rng) -> Example {
        loop {
            let sequence = self.sequence(random);
            let results = results(&sequence, hops);
            if let Some(Some(_)) = results.last() {
                return example(sequence, &results, hops);
            }
        }
    }
}

impl Hops {
    /// Symbols of which no two neighbours are equal.
    fn sequence(&self, random: &mut ChaCha8Rng) -> Vec<u32> {
        let symbols = self.alphabet as u32;
        let mut sequence = Vec::with_capacity(self.length);
        let mut last = below(random, symbols);
        sequence.push(last);
        while sequence.len() < self.length {
            // Any of the others.
            last = (last + 1 + below(random, symbols - 1)) % symbols;
            sequence.push(last);
        }
        sequence
    }
}

/// `hop_k` at each place, where it has a result.
fn results(sequence: &[u32], hops: usize) -> Vec<Option<u32>> {
    let mut place_after = vec![None; 26];
    let mut find = Vec::with_capacity(sequence.len());
    for (at, symbol) in sequence.iter().enumerate() {
        find.push(place_after[*symbol as usize]);
        place_after[*symbol as usize] = Some(at + 1);
    }
    let hop = |at: usize| {
        let mut place = Some(at);
        for _ in 0..hops {
            place = find[place?];
        }
        place.map(|place| sequence[place])
    };
    (0..sequence.len()).map(hop).collect()
}

fn example(sequence: Vec<u32>, results: &[Option<u32>], hops: usize) -> Example {
    let symbol = |symbol: u32| symbol + MARKER + 1;
    let symbols = sequence.iter().map(|s| symbol(*s));
    let targets = results.iter().map(|result| result.map_or(MARKER, symbol));
    let weights = results.iter().map(|result| match result {
        Some(_) => 1.0,
        None => 0.0,
    });
    Example {
        inputs: std::iter::repeat_n(MARKER, hops).chain(symbols).collect(),
        targets: std::iter::repeat_n(MARKER, hops).chain(targets).collect(),
        weights: std::iter::repeat_n(0.0, hops).chain(weights).collect(),
        // Without the number of hops: a sequence that is held out is held out at all of them.
        key: sequence,
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// The definition, word by word; places from 1, and 0 for none.
    fn naive(x: &[u32], k: usize, i: usize) -> usize {
        let find = |i: usize| {
            let places = (2..=i).filter(|j| x[j - 2] == x[i - 1]);
            places.max().unwrap_or(0)
        };
        let mut place = i;
        for _ in 0..k {
            place = match place {
                0 => 0,
                place => find(place),
            };
        }
        place
    }

    #[test]
    fn hops_by_hand() {
        // a b c a b: the last b was followed by c, and c has not been before.
        let sequence = [0, 1, 2, 0, 1];
        let of = |hops| results(&sequence, hops);
        assert_eq!(of(1), [None, None, None, Some(1), Some(2)]);
        assert_eq!(of(2), [None; 5]);
    }

    #[test]
    fn hops_are_those_of_the_definition() {
        let task = Hops::default();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for hops in 1..=8 {
            let example = task.draw(hops, &mut random);
            assert_eq!(example.inputs.len(), task.tokens(hops));
            assert_eq!(example.inputs[..hops], vec![MARKER; hops]);
            let x = &example.inputs[hops..];
            assert!(x.windows(2).all(|pair| pair[0] != pair[1]));
            for i in 1..=x.len() {
                let at = hops + i - 1;
                match naive(x, hops, i) {
                    0 => assert_eq!(example.weights[at], 0.0),
                    place => {
                        assert_eq!(example.targets[at], x[place - 1]);
                        assert_eq!(example.weights[at], 1.0);
                    }
                }
            }
            assert_eq!(example.weights.last(), Some(&1.0));
        }
    }
}
