//! What quality is drawn against.

use iiet_eval::report::{ModelReport, Report, Sides};

/// What is across in a panel.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub caption: &'static str,
    pub of: fn(&ModelReport) -> f64,
}

/// FLOPs of language models.
pub(super) const FLOPS: Cost = Cost {
    caption: "MFLOPs per token, forward pass",
    of: |model| model.cost.forward_flops() / 1e6,
};

/// FLOPs of encoder-decoders.
const FLOPS_OF_SIDES: Cost = Cost {
    caption: "MFLOPs of a source token and a target token, forward pass",
    ..FLOPS
};

const OTHERS: [Cost; 2] = [
    Cost {
        caption: "MB of weights",
        of: |model| model.cost.weight_bytes as f64 / 1e6,
    },
    Cost {
        caption: "ms per decoded token",
        of: |model| 1e3 / model.speed.decoding,
    },
];

/// Costs that differ by less than this share are alike.
const ALIKE: f64 = 0.02;

impl Cost {
    /// Those in which the models differ; the FLOPs if they are alike in all.
    pub(super) fn of_report(report: &Report) -> Vec<Self> {
        let two = |model: &ModelReport| matches!(model.stacks, Sides::Two { .. });
        let flops = match report.models.first().is_some_and(two) {
            true => FLOPS_OF_SIDES,
            false => FLOPS,
        };
        let all = [flops].into_iter().chain(OTHERS);
        let mut costs: Vec<Self> = all.filter(|cost| cost.differs(report)).collect();
        if costs.is_empty() {
            costs.push(flops);
        }
        costs
    }

    fn differs(self, report: &Report) -> bool {
        let costs = || report.models.iter().map(self.of);
        let least = costs().fold(f64::INFINITY, f64::min);
        costs().fold(0.0, f64::max) > (1.0 + ALIKE) * least
    }
}
