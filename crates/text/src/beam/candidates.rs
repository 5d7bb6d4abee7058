//! The best extensions of a source's beams by one token.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A beam and the token that extends it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Of the source's beams.
    pub(super) beam: usize,
    pub(super) token: u32,
    /// Of the extended beam, in nats.
    pub(super) log_probability: f64,
}

impl Eq for Candidate {}

/// The better is the less: the more likely one, and among equals that of the first beam and token.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let likely = other.log_probability.total_cmp(&self.log_probability);
        likely
            .then(self.beam.cmp(&other.beam))
            .then(self.token.cmp(&other.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first `count` candidates, the best first. Tokens of probability 0 are none.
///
/// `beams` are the log-probability of each beam and those of its next tokens.
pub(super) fn best<'l>(
    beams: impl Iterator<Item = (f64, &'l [f32])>,
    count: usize,
) -> Vec<Candidate> {
    let mut best = Best {
        count,
        kept: BinaryHeap::with_capacity(count + 1),
        least: f64::NEG_INFINITY,
    };
    for (beam, (so_far, tokens)) in beams.enumerate() {
        for (first, part) in (0u32..).step_by(PART).zip(tokens.chunks(PART)) {
            if best.excludes(so_far + f64::from(largest(part))) {
                continue;
            }
            for (token, log_p) in (first..).zip(part) {
                best.add(Candidate {
                    beam,
                    token,
                    log_probability: so_far + f64::from(*log_p),
                });
            }
        }
    }
    best.kept.into_sorted_vec()
}

/// The first `count` of the candidates so far.
struct Best {
    count: usize,
    /// The worst is on top.
    kept: BinaryHeap<Candidate>,
    /// The log-probability of the worst, if there are `count`.
    least: f64,
}

impl Best {
    /// Whether no later candidate of this log-probability is kept: an equal one comes after all that are.
    fn excludes(&self, log_probability: f64) -> bool {
        log_probability <= self.least
    }

    fn add(&mut self, candidate: Candidate) {
        if self.excludes(candidate.log_probability) {
            return;
        }
        self.kept.push(candidate);
        if self.kept.len() > self.count {
            self.kept.pop();
        }
        if let Some(worst) = self.kept.peek()
            && self.kept.len() == self.count
        {
            self.least = worst.log_probability;
        }
    }
}

/// Tokens of which the most likely one is looked at first: nearly all parts have none that is kept.
const PART: usize = 256;

/// The largest of some values without NaN, by lanes that the compiler keeps in registers.
fn largest(values: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 16];
    for values in values.chunks(largest.len()) {
        for (largest, &value) in largest.iter_mut().zip(values) {
            *largest = if value > *largest { value } else { *largest };
        }
    }
    largest.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_all_beams_come_first_and_ties_in_their_order() {
        let never = f32::NEG_INFINITY;
        let beams = [
            (-1.0, &[-2.0, -1.0, never][..]),
            (-0.5, &[-1.5, -4.0, -0.25][..]),
        ];
        let found = |count| -> Vec<(usize, u32, f64)> {
            best(beams.into_iter(), count)
                .iter()
                .map(|c| (c.beam, c.token, c.log_probability))
                .collect()
        };
        let all = [
            (1, 2, -0.75),
            (0, 1, -2.0),
            (1, 0, -2.0),
            (0, 0, -3.0),
            (1, 1, -4.5),
        ];
        for count in 0..=all.len() {
            assert_eq!(found(count), all[..count]);
        }
        assert_eq!(found(9), all);
    }

    #[test]
    fn long_rows_are_searched_to_their_end() {
        let vocab = 3 * PART + 21;
        let row = |shift: usize| -> Vec<f32> {
            let value = |token: usize| -(((token * 7919 + shift) % 4093) as f32);
            (0..vocab).map(value).collect()
        };
        let rows = [row(5), row(2048)];
        let mut all: Vec<Candidate> = (0..)
            .zip(&rows)
            .flat_map(|(beam, row)| {
                (0..).zip(row).map(move |(token, log_p)| Candidate {
                    beam,
                    token,
                    log_probability: f64::from(*log_p) - beam as f64,
                })
            })
            .collect();
        all.sort();
        let beams = || [(0.0, rows[0].as_slice()), (-1.0, rows[1].as_slice())].into_iter();
        for count in [1, 5, 400] {
            assert_eq!(best(beams(), count), all[..count]);
        }
    }
}
