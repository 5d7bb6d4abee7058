//! The steps of a beam search over a batch of sources.

use burn::tensor::Device;
use iiet_kernels::log_softmax;
use iiet_model::{EncoderDecoder, EncoderDecoderConfig, Precision, Source, SourceCache};

use super::candidates::best;
use super::repeats::repeated;
use super::{BeamSearch, Hypothesis, TargetEnds};
use crate::TextError;
use crate::engine::floats;
use crate::sampler::check;

/// A search in progress.
pub(super) struct Search<'m> {
    options: &'m BeamSearch,
    model: &'m EncoderDecoder,
    ends: &'m TargetEnds,
    device: &'m Device,
    /// The most tokens of a target, within the context.
    max_tokens: usize,
    /// Tokens of every beam.
    length: usize,
    /// The rows of each running source follow each other, `width` each.
    cache: SourceCache,
    width: usize,
    running: Vec<Beams>,
    /// By source.
    finished: Vec<Vec<Hypothesis>>,
}

/// The hypotheses of a source that is not finished.
struct Beams {
    /// The source's number.
    source: usize,
    /// The number of its group of rows in the cache.
    place: usize,
    /// From the most likely to the least; at least one.
    growing: Vec<Growing>,
    ended: Vec<Hypothesis>,
}

#[derive(Clone)]
struct Growing {
    /// The start token and those of the target.
    text: Vec<u32>,
    log_probability: f64,
    /// The row of the source's group in the cache that has all of the text but its last token.
    row: usize,
}

/// For each row of a group that is to have `width` rows, and has `had`, the row to keep there: each beam gets a row
/// of its own with its text. It stays in its row if it is the first to go on from there, and is copied to a free one
/// otherwise, so that few rows are copied.
fn in_place(growing: &mut [Growing], had: usize, width: usize) -> Vec<usize> {
    // Rows without a beam keep what they have, or, where there was none, a copy of the first beam's.
    let first = growing[0].row;
    let mut kept: Vec<usize> = (0..had)
        .chain(std::iter::repeat(first))
        .take(width)
        .collect();
    let mut is_taken = vec![false; width];
    let copied: Vec<usize> = (0..growing.len())
        .filter(|beam| std::mem::replace(&mut is_taken[growing[*beam].row], true))
        .collect();
    let free = (0..width).filter(|row| !is_taken[*row]);
    for (beam, row) in copied.into_iter().zip(free) {
        kept[row] = std::mem::replace(&mut growing[beam].row, row);
    }
    kept
}

impl<'m> Search<'m> {
    /// Encodes the sources; there is at least one.
    pub(super) fn new(
        options: &'m BeamSearch,
        model: &'m EncoderDecoder,
        sources: &[&[u32]],
        ends: &'m TargetEnds,
        stored: Precision,
        device: &'m Device,
    ) -> Result<Self, TextError> {
        options.validate()?;
        let sizes = model.sizes();
        check_ends(ends, sizes)?;
        sources
            .iter()
            .try_for_each(|source| check_source(source, sizes))?;
        // The start token has a place in the context.
        let max_tokens = options.max_tokens.min(sizes.seq_len - 1);
        if options.min_tokens > max_tokens {
            return Err(TextError::Beam {
                key: "min_tokens",
                found: options.min_tokens.to_string(),
                allowed: format!("allowed: 0 to {max_tokens}, which the model's context holds"),
            });
        }
        let start = Growing {
            text: vec![ends.start],
            log_probability: 0.0,
            row: 0,
        };
        let running = (0..sources.len()).map(|source| Beams {
            source,
            place: source,
            growing: vec![start.clone()],
            ended: Vec::new(),
        });
        Ok(Self {
            options,
            model,
            ends,
            device,
            max_tokens,
            length: 0,
            cache: model.cache(&Source::of(sources, device), stored),
            width: 1,
            running: running.collect(),
            finished: vec![Vec::new(); sources.len()],
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.running.is_empty()
    }

    /// Extends all beams by a token.
    pub(super) fn step(&mut self) -> Result<(), TextError> {
        self.arrange();
        let mut log_p = self.log_probabilities()?;
        let vocab = self.model.sizes().vocab_size;
        let of_sources = log_p.chunks_mut(self.width * vocab);
        for (mut beams, log_p) in std::mem::take(&mut self.running)
            .into_iter()
            .zip(of_sources)
        {
            self.extend(&mut beams, log_p);
            let is_finished = beams.ended.len() == self.options.beam || beams.growing.is_empty();
            match (is_finished, beams.ended.is_empty()) {
                (false, _) => self.running.push(beams),
                (true, false) => self.finished[beams.source] = beams.ended,
                (true, true) => {
                    let tokens = self.length;
                    return Err(TextError::NoHypothesis { tokens });
                }
            }
        }
        self.length += 1;
        Ok(())
    }

    /// Gives every beam a row of the cache that has its text.
    fn arrange(&mut self) {
        // All beams of a source are the same before the first token, so there is one.
        let width = match self.length {
            0 => 1,
            _ => self.options.beam,
        };
        let mut rows = Vec::with_capacity(self.running.len() * width);
        for (place, beams) in self.running.iter_mut().enumerate() {
            let group = beams.place * self.width;
            let kept = in_place(&mut beams.growing, self.width, width);
            rows.extend(kept.into_iter().map(|row| group + row));
            beams.place = place;
        }
        self.cache.keep_rows(&rows);
        self.width = width;
    }

    /// Of every token after every row of the cache, `[rows, vocab]`. The tokens chosen last are then in the
    /// cache.
    fn log_probabilities(&mut self) -> Result<Vec<f32>, TextError> {
        let mut next = Vec::with_capacity(self.running.len() * self.width);
        for beams in &self.running {
            let group = next.len();
            // Rows without a beam, where a source has fewer than others, go on with any token.
            next.resize(group + self.width, Some(self.ends.start));
            for beam in &beams.growing {
                next[group + beam.row] = beam.text.last().copied();
            }
        }
        let logits = self.model.decode(&next, &mut self.cache, self.device);
        let log_p = floats(log_softmax(logits.clone()));
        let vocab = self.model.sizes().vocab_size;
        // A NaN among the logits of a row is one in all of its log-probabilities.
        if log_p.chunks(vocab).any(|row| row[0].is_nan()) {
            floats(logits).chunks(vocab).try_for_each(check)?;
        }
        Ok(log_p)
    }

    /// Moves extensions by end tokens to the finished hypotheses; others are the next beams.
    ///
    /// # Shapes
    ///
    /// - log_p: `[width, vocab]`
    fn extend(&self, beams: &mut Beams, log_p: &mut [f32]) {
        let (beam, end) = (self.options.beam, &self.ends.end);
        let vocab = self.model.sizes().vocab_size;
        for growing in &beams.growing {
            self.restrict(&growing.text, &mut log_p[growing.row * vocab..][..vocab]);
        }
        let rows = beams.growing.iter().map(|growing| {
            let row = &log_p[growing.row * vocab..][..vocab];
            (growing.log_probability, row)
        });
        // Each beam has an extension by each end token, so enough others are among these.
        let candidates = best(rows, beam * (1 + end.len()));
        let mut next = Vec::with_capacity(beam);
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let text = &beams.growing[candidate.beam].text;
            let log_probability = candidate.log_probability;
            if end.contains(&candidate.token) {
                if rank < beam && beams.ended.len() < beam {
                    beams.ended.push(Hypothesis {
                        tokens: text[1..].to_vec(),
                        end: Some(candidate.token),
                        forced: self.length == self.max_tokens,
                        log_probability,
                        score: self.options.score(log_probability, text.len()),
                    });
                }
            } else if next.len() < beam {
                next.push(Growing {
                    text: [text, &[candidate.token][..]].concat(),
                    log_probability,
                    row: beams.growing[candidate.beam].row,
                });
            }
        }
        beams.growing = next;
    }

    /// Gives the tokens that may not follow the text the probability 0.
    fn restrict(&self, text: &[u32], log_p: &mut [f32]) {
        let BeamSearch {
            min_tokens,
            no_repeat_ngram,
            ..
        } = *self.options;
        let is_end = |token: u32| self.ends.end.contains(&token);
        if self.length == self.max_tokens {
            let tokens = (0..).zip(log_p);
            let others = tokens.filter(|(token, _)| !is_end(*token));
            others.for_each(|(_, log_p)| *log_p = f32::NEG_INFINITY);
            return;
        }
        let repeated = repeated(text, no_repeat_ngram).filter(|token| !is_end(*token));
        let early = self.ends.end.iter().copied();
        let early = early.filter(|_| self.length < min_tokens);
        for token in repeated.chain(early) {
            if let Some(log_p) = log_p.get_mut(token as usize) {
                *log_p = f32::NEG_INFINITY;
            }
        }
    }

    /// The last token of the first source's first beam, if the source is not finished.
    pub(super) fn last_chosen(&self) -> Option<u32> {
        self.running.first()?.growing[0].text.last().copied()
    }

    /// The first source's first beam as it is, which has a token at least.
    pub(super) fn into_unfinished(mut self) -> Hypothesis {
        let mut growing = self.running.swap_remove(0).growing;
        let Growing {
            text,
            log_probability,
            ..
        } = growing.swap_remove(0);
        let tokens = text[1..].to_vec();
        Hypothesis {
            score: self.options.score(log_probability, tokens.len()),
            tokens,
            end: None,
            forced: false,
            log_probability,
        }
    }

    /// The best hypotheses of each source, when all are finished.
    pub(super) fn into_best(self) -> Vec<Vec<Hypothesis>> {
        let mut finished = self.finished;
        for ended in &mut finished {
            // Equal scores stay in the order in which they ended.
            ended.sort_by(|a, b| b.score.total_cmp(&a.score));
            ended.truncate(self.options.n_best);
        }
        finished
    }
}

fn check_ends(ends: &TargetEnds, sizes: &EncoderDecoderConfig) -> Result<(), TextError> {
    let vocab_size = sizes.vocab_size;
    let allowed = format!("allowed: 0 to {}", vocab_size - 1);
    let refuse = |key, found| {
        Err(TextError::Beam {
            key,
            found,
            allowed,
        })
    };
    let is_known = |token: &u32| (*token as usize) < vocab_size;
    if !is_known(&ends.start) {
        return refuse("start token", ends.start.to_string());
    }
    match ends.end.iter().find(|token| !is_known(token)) {
        Some(unknown) => refuse("end token", unknown.to_string()),
        None if ends.end.is_empty() => refuse("end token", "missing".into()),
        None => Ok(()),
    }
}

/// Checks that the model can encode a source.
pub(crate) fn check_source(source: &[u32], sizes: &EncoderDecoderConfig) -> Result<(), TextError> {
    let (tokens, context) = (source.len(), sizes.seq_len);
    let last = sizes.vocab_size - 1;
    if tokens == 0 {
        let reason = "has no tokens".into();
        return Err(TextError::Source { reason });
    }
    if let Some(id) = source.iter().find(|id| **id as usize > last) {
        let reason = format!("has the token {id}; allowed: 0 to {last}");
        return Err(TextError::Source { reason });
    }
    match tokens > context {
        true => Err(TextError::SourceTooLong { tokens, context }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(beams: &[usize]) -> Vec<Growing> {
        let growing = |row: &usize| Growing {
            text: Vec::new(),
            log_probability: 0.0,
            row: *row,
        };
        beams.iter().map(growing).collect()
    }

    #[test]
    fn rows_stay_in_place_and_only_repeated_ones_are_copied() {
        for (beams, had, width, kept, places) in [
            (&[0][..], 1, 1, &[0][..], &[0][..]),
            (&[0, 0, 0], 1, 3, &[0, 0, 0], &[0, 1, 2]),
            (&[2, 0, 1], 3, 3, &[0, 1, 2], &[2, 0, 1]),
            (&[1, 1, 2], 3, 3, &[1, 1, 2], &[1, 0, 2]),
            (&[2, 2, 2], 3, 3, &[2, 2, 2], &[2, 0, 1]),
            // A source with fewer beams than rows.
            (&[2], 3, 3, &[0, 1, 2], &[2]),
            (&[0, 0], 1, 3, &[0, 0, 0], &[0, 1]),
        ] {
            let mut growing = rows_of(beams);
            assert_eq!(in_place(&mut growing, had, width), kept, "{beams:?}");
            let rows: Vec<usize> = growing.iter().map(|beam| beam.row).collect();
            assert_eq!(rows, places, "{beams:?}");
        }
    }
}
