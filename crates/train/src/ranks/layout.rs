//! Buckets: the order in which parts of parameters are exchanged.
//!
//! ```text
//! parameters of the blocks, from the last layer to the first, then all others   the order of the backward pass
//! a bucket: consecutive pieces [from, to) of every rank's part of a parameter, at most BUCKET bytes
//! ```
//!
//! A parameter larger than a bucket is divided; small ones share one (Li et al., *PyTorch Distributed*,
//! arXiv 2006.15704, section 3.2.3).

use super::Part;
use crate::TrainedModel;
use crate::lengths::lengths;
use crate::parallel::BUCKET;

/// What the names of the blocks' parameters contain, on either side of a model. Each of them is used in one
/// layer alone, so its gradient is complete once that layer has been differentiated.
pub(crate) const LAYERS: &str = ".layers.";

/// A piece of each rank's part of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its place in [`Layout::parameters`].
    pub(super) parameter: usize,
    /// The first element within the part.
    pub(super) from: usize,
    /// The element after the last.
    pub(super) to: usize,
}

/// What is exchanged in one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) segments: Vec<Segment>,
    /// Elements of one rank's part: the sum of the segments' lengths.
    pub(super) block: usize,
}

/// A parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) length: usize,
    /// The last bucket with a piece of it.
    pub(super) last_bucket: usize,
}

/// The buckets of a model, equal on every rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(super) parameters: Vec<Entry>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) size: usize,
}

impl Layout {
    /// Of a model's parameters, for a number of ranks.
    pub(crate) fn of<M: TrainedModel>(model: &M, size: usize) -> Self {
        Self::new(lengths(model), size, BUCKET as usize / size_of::<f32>())
    }

    /// `parameters` are in the order of the forward pass, with their lengths; `elements` is the size of a bucket.
    pub(super) fn new(parameters: Vec<(String, usize)>, size: usize, elements: usize) -> Self {
        let (of_layers, others): (Vec<_>, Vec<_>) = parameters
            .into_iter()
            .rev()
            .partition(|(name, _)| name.contains(LAYERS));
        let limit = (elements / size).max(1);
        let mut layout = Self {
            parameters: Vec::new(),
            buckets: Vec::new(),
            size,
        };
        for group in [of_layers, others] {
            // The others' gradients are complete later, so they do not share a bucket with layers.
            layout.buckets.push(Bucket::default());
            for (name, length) in group {
                layout.add(name, length, limit);
            }
        }
        layout.buckets.retain(|bucket| bucket.block > 0);
        for (at, bucket) in layout.buckets.iter().enumerate() {
            for segment in &bucket.segments {
                layout.parameters[segment.parameter].last_bucket = at;
            }
        }
        layout
    }

    fn add(&mut self, name: String, length: usize, limit: usize) {
        let part = Part::longest(length, self.size);
        let parameter = self.parameters.len();
        let mut from = 0;
        while from < part {
            let bucket = self.buckets.last_mut();
            let bucket = bucket.expect("invariant: each group begins with a bucket");
            let to = part.min(from + limit - bucket.block);
            if to > from {
                bucket.segments.push(Segment {
                    parameter,
                    from,
                    to,
                });
                bucket.block += to - from;
            }
            if bucket.block == limit {
                self.buckets.push(Bucket::default());
            }
            from = to;
        }
        self.parameters.push(Entry {
            name,
            length,
            last_bucket: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, elements: usize) -> Layout {
        let parameters = [
            ("embed", 10),
            ("model.layers.0.w", 7),
            ("model.layers.1.w", 3),
            ("norm", 2),
        ];
        let parameters = parameters.map(|(name, length)| (name.to_owned(), length));
        Layout::new(parameters.to_vec(), size, elements)
    }

    #[test]
    fn layers_come_first_and_from_the_last_to_the_first() {
        let layout = layout(2, 8);
        let names: Vec<&str> = layout.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            ["model.layers.1.w", "model.layers.0.w", "norm", "embed"]
        );
        // Parts of 2, 4, 1 and 5 elements in buckets of 4.
        let blocks: Vec<usize> = layout.buckets.iter().map(|bucket| bucket.block).collect();
        assert_eq!(blocks, [4, 2, 4, 2]);
        let last: Vec<usize> = layout.parameters.iter().map(|p| p.last_bucket).collect();
        assert_eq!(last, [0, 1, 2, 3]);
    }

    #[test]
    fn every_element_of_a_part_is_in_one_bucket() {
        for (size, elements) in [(1, 1), (2, 3), (3, 1000), (7, 5)] {
            let layout = layout(size, elements);
            for (at, entry) in layout.parameters.iter().enumerate() {
                let segments = layout.buckets.iter().flat_map(|bucket| &bucket.segments);
                let mut end = 0;
                for segment in segments.filter(|segment| segment.parameter == at) {
                    assert_eq!(segment.from, end);
                    end = segment.to;
                }
                assert_eq!(end, Part::longest(entry.length, size), "{}", entry.name);
            }
        }
    }
}
