//! Successive halving: train all configurations a little, the better half twice as long, and so on.
//!
//! Jamieson and Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*,
//! arXiv 1502.07943, with a factor of 2. A configuration is compared by its mean validation loss over
//! all seeds, so it is kept or dropped with all its trials.

/// The steps after which configurations are compared, `steps` at the end: each rung is twice as long
/// as the one before, and there are as many as it takes until one of `configurations` is left.
///
/// A rung is rounded up to a multiple of `every`, the steps between validations, and lies above
/// `warmup`; shorter ones are left out.
pub fn rungs(configurations: usize, steps: u64, every: u64, warmup: u64) -> Vec<u64> {
    let mut rungs = vec![steps];
    let mut left = configurations;
    let mut length = steps;
    while left > 1 {
        left = left.div_ceil(2);
        length /= 2;
        let rung = length.max(1).next_multiple_of(every.max(1));
        if rung <= warmup || rung >= rungs[rungs.len() - 1] {
            break;
        }
        rungs.push(rung);
    }
    rungs.reverse();
    rungs
}

/// Which configurations of a rung go on, in their order: the half (rounded up) of lowest loss. `None`
/// is a configuration of which a trial failed; it never goes on.
pub fn survivors(losses: &[Option<f64>]) -> Vec<usize> {
    let mut ranked: Vec<(f64, usize)> = losses
        .iter()
        .enumerate()
        .filter_map(|(at, loss)| loss.map(|loss| (loss, at)))
        .collect();
    ranked.sort_by(|(a, i), (b, j)| a.total_cmp(b).then(i.cmp(j)));
    ranked.truncate(losses.len().div_ceil(2));
    let mut kept: Vec<usize> = ranked.into_iter().map(|(_, at)| at).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_configurations_are_halved_three_times() {
        // 8 for 100 steps, 4 for 200, 2 for 400, 1 for 800.
        assert_eq!(rungs(8, 800, 50, 0), [100, 200, 400, 800]);
        // 5, 3, 2, 1.
        assert_eq!(rungs(5, 800, 50, 0), [100, 200, 400, 800]);
        assert_eq!(rungs(2, 800, 50, 0), [400, 800]);
        assert_eq!(rungs(1, 800, 50, 0), [800]);
    }

    #[test]
    fn rungs_are_at_validations_and_after_the_warmup() {
        assert_eq!(rungs(8, 1000, 100, 0), [200, 300, 500, 1000]);
        assert_eq!(rungs(8, 800, 50, 100), [200, 400, 800]);
        // No validation before the end.
        assert_eq!(rungs(8, 100, 250, 0), [100]);
        assert_eq!(rungs(1000, 4, 1, 0), [1, 2, 4]);
        assert_eq!(rungs(2, 1, 1, 0), [1]);
    }

    #[test]
    fn the_better_half_goes_on() {
        let losses = [Some(3.0), Some(1.0), None, Some(2.0), Some(1.5)];
        // Three of five.
        assert_eq!(survivors(&losses), [1, 3, 4]);
        assert_eq!(survivors(&[Some(1.0), Some(1.0)]), [0]);
        assert_eq!(survivors(&[None, None, Some(9.0)]), [2]);
        assert_eq!(survivors(&[None]), [0; 0]);
    }
}
