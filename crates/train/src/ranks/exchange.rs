//! The exchange of a step's gradients, and of updated weights.
//!
//! ```text
//! g_i       the gradients of rank i, divided into a part for each of N ranks
//! all-to-all: rank j receives part j of every g_i, and sums them in the order of i
//! all-gather: every rank receives every part's sum
//! ```
//!
//! The first is a reduce-scatter, both together are an all-reduce, and each rank sends (N - 1) / N of the gradients'
//! bytes in each. With a sharded optimiser the second is left out: a rank updates the part that it has summed, and
//! the updated weights are gathered instead (Rajbhandari et al., *ZeRO*, arXiv 1910.02054, stage 1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, bf16};

use super::layout::{Bucket, Layout};
use super::{Part, Pending, RankError, Ranks};
use crate::Transfer;
use crate::parallel::UNDER_WAY;

/// The gradients of one step on their way to their sums.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    ranks: &'a Ranks,
    part: Part,
    transfer: Transfer,
    /// Whether every rank receives all sums, and not its part alone.
    whole: bool,
    layout: Layout,
    places: BTreeMap<String, usize>,
    /// Gradients whose last bucket has not been sent yet.
    given: Vec<Option<Vec<f32>>>,
    /// Parameters that have a gradient.
    names: BTreeSet<String>,
    /// Buckets that have been sent.
    sent: usize,
    arriving: VecDeque<(usize, Pending)>,
    gathering: VecDeque<(usize, Pending)>,
    sums: Vec<Vec<f32>>,
    waited: Duration,
    failed: Option<RankError>,
}

/// Sums over the ranks.
#[derive(Debug)]
pub(crate) struct Summed {
    /// Whole gradients, or this rank's part of each, as far as it is not empty.
    pub(crate) gradients: BTreeMap<String, Vec<f32>>,
    /// All parameters that have a gradient.
    pub(crate) names: BTreeSet<String>,
    /// The time that the computation waited for the exchange.
    pub(crate) waited: Duration,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(ranks: &'a Ranks, layout: Layout, transfer: Transfer, whole: bool) -> Self {
        let part = Part::of(ranks);
        let places = layout.parameters.iter().enumerate();
        let sums = layout.parameters.iter().map(|entry| match whole {
            true => entry.length,
            false => part.range(entry.length).len(),
        });
        Self {
            ranks,
            part,
            transfer,
            whole,
            places: places.map(|(at, entry)| (entry.name.clone(), at)).collect(),
            given: vec![None; layout.parameters.len()],
            names: BTreeSet::new(),
            sent: 0,
            arriving: VecDeque::new(),
            gathering: VecDeque::new(),
            // Allocated when the first of them arrive.
            sums: sums.map(|_| Vec::new()).collect(),
            waited: Duration::ZERO,
            failed: None,
            layout,
        }
    }

    /// Takes the complete gradient of a parameter, flattened, and sends the buckets that are full.
    pub(crate) fn give(&mut self, name: &str, gradient: Tensor<1>) {
        let at = *self
            .places
            .get(name)
            .expect("invariant: the layout has every parameter");
        let values = gradient.into_data().convert::<f32>();
        let values = values
            .try_into_vec()
            .expect("invariant: converted to f32 above");
        self.given[at] = Some(values);
        self.names.insert(name.to_owned());
        while self.sent < self.layout.buckets.len() && self.is_full(self.sent) {
            self.send_next();
        }
    }

    fn is_full(&self, bucket: usize) -> bool {
        let segments = &self.layout.buckets[bucket].segments;
        let given = |at: usize| self.given[at].is_some();
        segments.iter().all(|segment| given(segment.parameter))
    }

    /// The sums, once everything has been given: parameters without a gradient have none on any rank.
    ///
    /// # Errors
    ///
    /// [`RankError`] if a rank does not take part.
    pub(crate) fn finish(mut self) -> Result<Summed, RankError> {
        while self.sent < self.layout.buckets.len() {
            self.send_next();
        }
        while !self.arriving.is_empty() {
            self.receive();
        }
        while !self.gathering.is_empty() {
            self.receive_sums();
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let names = self.names;
        let sums = self.layout.parameters.into_iter().zip(self.sums);
        let gradients = sums
            .filter(|(entry, sum)| names.contains(&entry.name) && !sum.is_empty())
            .map(|(entry, sum)| (entry.name, sum))
            .collect();
        Ok(Summed {
            gradients,
            names,
            waited: self.waited,
        })
    }

    fn send_next(&mut self) {
        let at = self.sent;
        self.sent += 1;
        if self.failed.is_some() {
            return;
        }
        let size = self.layout.size;
        let bucket = &self.layout.buckets[at];
        let mut values = Vec::with_capacity(bucket.block * size);
        for rank in 0..size {
            for segment in &bucket.segments {
                let length = self.layout.parameters[segment.parameter].length;
                let first = rank * Part::longest(length, size);
                let end = values.len() + segment.to - segment.from;
                if let Some(given) = &self.given[segment.parameter] {
                    let range = |at: usize| (first + at).min(length);
                    values.extend_from_slice(&given[range(segment.from)..range(segment.to)]);
                }
                // Parts of one parameter have one length on every rank.
                values.resize(end, 0.0);
            }
        }
        for segment in &bucket.segments {
            if self.layout.parameters[segment.parameter].last_bucket == at {
                self.given[segment.parameter] = None;
            }
        }
        let sending = self.ranks.all_to_all(to_bytes(&values, self.transfer));
        self.arriving.push_back((at, sending));
        if self.arriving.len() > UNDER_WAY as usize {
            self.receive();
        }
    }

    fn wait(&mut self, pending: Pending) -> Option<Vec<u8>> {
        let begun = Instant::now();
        let result = pending.wait();
        self.waited += begun.elapsed();
        result.map_err(|error| self.failed = Some(error)).ok()
    }

    /// Sums the oldest bucket on its way.
    fn receive(&mut self) {
        let Some((at, pending)) = self.arriving.pop_front() else {
            return;
        };
        let Some(bytes) = self.wait(pending) else {
            return;
        };
        let bucket = &self.layout.buckets[at];
        let mut sum = vec![0.0; bucket.block];
        for of_rank in bytes.chunks(bucket.block * self.transfer.bytes()) {
            add(&mut sum, of_rank, self.transfer);
        }
        if !self.whole {
            let part = [(self.part.rank, sum.as_slice())];
            place(&self.layout, bucket, part, false, &mut self.sums);
            return;
        }
        let gathering = self.ranks.all_gather(to_bytes(&sum, self.transfer));
        self.gathering.push_back((at, gathering));
        if self.gathering.len() > UNDER_WAY as usize {
            self.receive_sums();
        }
    }

    /// Takes the oldest sums of all ranks.
    fn receive_sums(&mut self) {
        let Some((at, pending)) = self.gathering.pop_front() else {
            return;
        };
        let Some(bytes) = self.wait(pending) else {
            return;
        };
        let bucket = &self.layout.buckets[at];
        let sums = from_bytes(&bytes, self.transfer);
        let of_each = sums.chunks(bucket.block).enumerate();
        place(&self.layout, bucket, of_each, true, &mut self.sums);
    }
}

/// Puts a bucket's parts, with the ranks that have summed them, in place.
fn place<'a>(
    layout: &Layout,
    bucket: &Bucket,
    parts: impl IntoIterator<Item = (usize, &'a [f32])>,
    whole: bool,
    into: &mut [Vec<f32>],
) {
    for (rank, values) in parts {
        let part = Part {
            rank,
            size: layout.size,
        };
        let mut values = values;
        for segment in &bucket.segments {
            let (own, rest) = values.split_at(segment.to - segment.from);
            values = rest;
            let length = layout.parameters[segment.parameter].length;
            let range = part.range(length);
            let from = segment.from.min(range.len());
            let count = segment.to.min(range.len()) - from;
            let target = &mut into[segment.parameter];
            let (first, length) = match whole {
                true => (range.start, length),
                false => (0, range.len()),
            };
            target.resize(length, 0.0);
            target[first + from..first + from + count].copy_from_slice(&own[..count]);
        }
    }
}

/// Every rank's parts of the named parameters, put together; `parts` are this rank's as far as they are not empty.
///
/// # Errors
///
/// [`RankError`] if a rank does not take part.
pub(crate) fn gathered(
    ranks: &Ranks,
    layout: &Layout,
    parts: &BTreeMap<String, Vec<f32>>,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Vec<f32>>, RankError> {
    let mut whole = vec![Vec::new(); layout.parameters.len()];
    let mut under_way: VecDeque<(&Bucket, Pending)> = VecDeque::new();
    let mut receive = |(bucket, pending): (&Bucket, Pending)| {
        let bytes = pending.wait()?;
        let values = from_bytes(&bytes, Transfer::F32);
        let of_each = values.chunks(bucket.block).enumerate();
        place(layout, bucket, of_each, true, &mut whole);
        Ok(())
    };
    for bucket in &layout.buckets {
        let mut values = Vec::with_capacity(bucket.block);
        for segment in &bucket.segments {
            let end = values.len() + segment.to - segment.from;
            if let Some(part) = parts.get(&layout.parameters[segment.parameter].name) {
                let within = |at: usize| at.min(part.len());
                values.extend_from_slice(&part[within(segment.from)..within(segment.to)]);
            }
            values.resize(end, 0.0);
        }
        under_way.push_back((bucket, ranks.all_gather(to_bytes(&values, Transfer::F32))));
        if under_way.len() > UNDER_WAY as usize
            && let Some(oldest) = under_way.pop_front()
        {
            receive(oldest)?;
        }
    }
    under_way.into_iter().try_for_each(receive)?;
    let whole = layout.parameters.iter().zip(whole);
    let named = whole.filter(|(entry, _)| names.contains(&entry.name));
    Ok(named
        .map(|(entry, values)| (entry.name.clone(), values))
        .collect())
}

fn to_bytes(values: &[f32], transfer: Transfer) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * transfer.bytes()];
    match transfer {
        Transfer::F32 => {
            let (places, _) = bytes.as_chunks_mut();
            for (place, x) in places.iter_mut().zip(values) {
                *place = x.to_le_bytes();
            }
        }
        Transfer::Bf16 => {
            let (places, _) = bytes.as_chunks_mut();
            for (place, x) in places.iter_mut().zip(values) {
                *place = bf16::from_f32(*x).to_le_bytes();
            }
        }
    }
    bytes
}

/// Adds received values to as many sums.
fn add(sums: &mut [f32], bytes: &[u8], transfer: Transfer) {
    match transfer {
        Transfer::F32 => {
            let (values, _) = bytes.as_chunks();
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += f32::from_le_bytes(*x);
            }
        }
        Transfer::Bf16 => {
            let (values, _) = bytes.as_chunks();
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += bf16::from_le_bytes(*x).to_f32();
            }
        }
    }
}

fn from_bytes(bytes: &[u8], transfer: Transfer) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / transfer.bytes()];
    add(&mut values, bytes, transfer);
    values
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::ranks::Threads;

    const PARAMETERS: [(&str, usize); 5] = [
        ("embed", 10),
        ("model.layers.0.w", 7),
        ("model.layers.1.w", 3),
        ("norm", 1),
        ("unused", 4),
    ];

    /// The result of each of several threads that are ranks.
    fn on_each<T: Send>(size: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let ranks = Threads::new(size).into_iter().map(Ranks::new);
            let threads: Vec<_> = ranks
                .map(|ranks| scope.spawn(|| work(&{ ranks })))
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.collect()
        })
    }

    fn layout(size: usize, elements: usize) -> Layout {
        let parameters = PARAMETERS.map(|(name, length)| (name.to_owned(), length));
        Layout::new(parameters.to_vec(), size, elements)
    }

    /// Small whole numbers, whose sums are exact in both formats.
    fn gradient(rank: usize, at: usize, length: usize) -> Vec<f32> {
        (0..length)
            .map(|i| ((7 * rank + 3 * at + i) % 11) as f32 - 5.0)
            .collect()
    }

    fn summed(ranks: &Ranks, elements: usize, transfer: Transfer, whole: bool) -> Summed {
        let layout = layout(ranks.size(), elements);
        let mut exchange = Exchange::new(ranks, layout, transfer, whole);
        // In the order of the backward pass, with the embedding's last.
        for at in [3, 2, 1, 0] {
            let (name, length) = PARAMETERS[at];
            let values = gradient(ranks.rank(), at, length);
            exchange.give(
                name,
                Tensor::from_floats(values.as_slice(), &Device::default()),
            );
        }
        exchange.finish().unwrap()
    }

    #[test]
    fn every_rank_has_the_sums() {
        for size in [2, 3, 5] {
            for elements in [1, 4, 9, 1000] {
                for transfer in [Transfer::F32, Transfer::Bf16] {
                    let of_each = on_each(size, |ranks| summed(ranks, elements, transfer, true));
                    for found in of_each {
                        assert_eq!(found.names.len(), 4);
                        assert_eq!(found.gradients.len(), 4, "unused has no gradient");
                        for (at, (name, length)) in PARAMETERS.iter().enumerate().take(4) {
                            let of_ranks = (0..size).map(|rank| gradient(rank, at, *length));
                            let sum = of_ranks
                                .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
                            assert_eq!(found.gradients[*name], sum.unwrap(), "{name}, {size}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn parts_are_those_of_the_sums_and_can_be_gathered() {
        for size in [2, 3, 5] {
            for elements in [1, 4, 1000] {
                let whole = on_each(size, |ranks| {
                    let parts = summed(ranks, elements, Transfer::F32, false);
                    let layout = layout(size, elements);
                    for (name, part) in &parts.gradients {
                        let length = PARAMETERS.iter().find(|(own, _)| own == name).unwrap().1;
                        assert_eq!(part.len(), Part::of(ranks).range(length).len());
                    }
                    let whole = gathered(ranks, &layout, &parts.gradients, &parts.names);
                    (
                        whole.unwrap(),
                        summed(ranks, elements, Transfer::F32, true).gradients,
                    )
                });
                for (gathered, expected) in whole {
                    assert_eq!(gathered, expected, "{size} ranks, {elements}");
                }
            }
        }
    }

    #[test]
    fn sums_are_added_in_the_order_of_the_ranks() {
        let values = [1.0f32, 1e8, -1e8];
        let sums = on_each(3, |ranks| {
            let layout = Layout::new(vec![("w".into(), 1)], 3, 10);
            let mut exchange = Exchange::new(ranks, layout, Transfer::F32, true);
            let own = [values[ranks.rank()]];
            exchange.give("w", Tensor::from_floats(own, &Device::default()));
            exchange.finish().unwrap().gradients["w"][0]
        });
        // 1 is lost in 1e8: in another order the sum is 1.
        assert_eq!(sums, [0.0; 3]);
    }

    #[test]
    fn a_rank_that_ends_is_an_error_on_the_others() {
        let results = on_each(3, |ranks| match ranks.rank() {
            1 => Ok(Vec::new()),
            _ => ranks.sums(&[1.0]),
        });
        let [first, _, last] = results.try_into().unwrap();
        assert_eq!(
            [first, last],
            [Err(RankError::Ended), Err(RankError::Ended)]
        );
    }
}
