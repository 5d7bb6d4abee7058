//! Iteration schedules from influences.
//!
//! The corrections of a layer form a chain: the i-th starts from the (i-1)-th. So a layer keeps a prefix of
//! them, and a schedule is the length of this prefix for each layer.
//!
//! Liu et al., *IIET*, EMNLP 2025 (arXiv 2509.22463), section 4: iteration-influence-aware
//! distillation.

use iiet_ode::IterationSchedule;

use crate::DistillError;

/// Keeps the corrections of each layer up to the first whose influence is below `tau`.
///
/// `influence[n - 1][i - 1]` is `I[n,i]`, one row per layer. Tau 0 keeps all corrections, and tau above 2,
/// the maximum influence, keeps none.
///
/// # Errors
///
/// [`DistillError::Threshold`] if tau is negative or not a number.
pub fn by_threshold(influence: &[Vec<f64>], tau: f64) -> Result<IterationSchedule, DistillError> {
    check_threshold(tau)?;
    let kept = |row: &Vec<f64>| row.iter().take_while(|value| **value >= tau).count();
    Ok(IterationSchedule::PerLayer(
        influence.iter().map(kept).collect(),
    ))
}

/// Checks a threshold, before influences are measured.
///
/// # Errors
///
/// [`DistillError::Threshold`] if tau is negative or not a number.
pub fn check_threshold(tau: f64) -> Result<(), DistillError> {
    match tau >= 0.0 {
        true => Ok(()),
        false => Err(DistillError::Threshold { found: tau }),
    }
}

/// Drops corrections, the least influential of the layers' last ones first, until layers have `mean`
/// evaluations on average, including the guess.
///
/// The result is at most the mean, by less than one evaluation of one layer. Among equals, the correction in
/// the latest layer is dropped first. A smaller budget keeps a subset of what a larger one keeps.
///
/// # Errors
///
/// The errors of [`check_budget`].
pub fn by_budget(influence: &[Vec<f64>], mean: f64) -> Result<IterationSchedule, DistillError> {
    let corrections: Vec<usize> = influence.iter().map(Vec::len).collect();
    check_budget(&corrections, mean)?;
    let layers = influence.len();
    let mut kept = corrections;
    while (layers + kept.iter().sum::<usize>()) as f64 > mean * layers as f64 {
        let last = |n: &usize| influence[*n][kept[*n] - 1];
        let least = (0..layers)
            .rev()
            .filter(|n| kept[*n] > 0)
            .min_by(|a, b| last(a).total_cmp(&last(b)))
            .expect("invariant: without corrections the mean is 1, within every budget");
        kept[least] -= 1;
    }
    Ok(IterationSchedule::PerLayer(kept))
}

/// Checks a budget for a model with `teacher` corrections in each layer, before influences are measured.
///
/// # Errors
///
/// [`DistillError::Budget`] if the mean is below 1, the guess of every layer, above the teacher's, or NaN.
pub fn check_budget(teacher: &[usize], mean: f64) -> Result<(), DistillError> {
    let all: usize = teacher.iter().map(|corrections| corrections + 1).sum();
    let most = all as f64 / teacher.len().max(1) as f64;
    match (1.0..=most).contains(&mean) {
        true => Ok(()),
        false => Err(DistillError::Budget { found: mean, most }),
    }
}

/// A given schedule, checked against a model with `teacher` corrections in each layer.
///
/// # Errors
///
/// [`DistillError::Schedule`] for another number of layers, or for more corrections in a layer than the
/// teacher has.
pub fn by_hand(
    teacher: &[usize],
    schedule: IterationSchedule,
) -> Result<IterationSchedule, DistillError> {
    let refuse = |found: String| {
        Err(DistillError::Schedule {
            found,
            allowed: format!("{teacher:?}, as in the teacher, or fewer"),
        })
    };
    if let IterationSchedule::PerLayer(kept) = &schedule
        && kept.len() != teacher.len()
    {
        return refuse(format!("has {} layers", kept.len()));
    }
    let kept = schedule.per_layer(teacher.len());
    match kept.iter().zip(teacher).position(|(kept, all)| kept > all) {
        Some(n) => refuse(format!("has {} corrections in layer {}", kept[n], n + 1)),
        None => Ok(IterationSchedule::PerLayer(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IterationSchedule::PerLayer;
    use proptest::prelude::*;

    fn table() -> Vec<Vec<f64>> {
        vec![
            vec![0.5, 0.1, 0.3],
            vec![0.2, 0.2, 0.05],
            vec![0.01, 0.4, 0.4],
        ]
    }

    #[test]
    fn a_threshold_keeps_corrections_up_to_the_first_below_it() {
        let at = |tau| by_threshold(&table(), tau).unwrap();
        assert_eq!(at(0.2), PerLayer(vec![1, 2, 0]));
        assert_eq!(at(0.05), PerLayer(vec![3, 3, 0]));
        assert_eq!(at(0.0), PerLayer(vec![3, 3, 3]));
        assert_eq!(at(2.0), PerLayer(vec![0, 0, 0]));
        assert!(by_threshold(&table(), f64::NAN).is_err());
        assert!(by_threshold(&table(), -0.1).is_err());
    }

    #[test]
    fn a_budget_drops_the_least_influential_last_corrections() {
        // 12 evaluations: 0.05 of layer 2 goes first, then its 0.2, then the other 0.2, then 0.3.
        for (mean, kept) in [
            (4.0, [3, 3, 3]),
            (3.7, [3, 2, 3]),
            (3.0, [3, 0, 3]),
            (2.7, [2, 0, 3]),
            (2.4, [1, 0, 3]),
            (1.0, [0, 0, 0]),
        ] {
            assert_eq!(
                by_budget(&table(), mean).unwrap(),
                PerLayer(kept.into()),
                "{mean}"
            );
        }
        for mean in [0.9, 4.1, f64::INFINITY] {
            let error = by_budget(&table(), mean).unwrap_err().to_string();
            let expected = "allowed: 1, the guess of every layer, to 4, the number of the teacher";
            assert!(error.contains(expected), "{error}");
        }
        assert!(by_budget(&table(), f64::NAN).is_err());
    }

    #[test]
    fn a_given_schedule_must_not_exceed_the_teachers() {
        let by_hand = |schedule| by_hand(&[3, 2], schedule);
        assert_eq!(
            by_hand(IterationSchedule::Uniform(2)).unwrap(),
            PerLayer(vec![2, 2])
        );
        assert_eq!(by_hand(PerLayer(vec![3, 0])).unwrap(), PerLayer(vec![3, 0]));
        for (schedule, message) in [
            (
                PerLayer(vec![1]),
                "the schedule has 1 layers; allowed: [3, 2], as in the teacher",
            ),
            (PerLayer(vec![3, 3]), "3 corrections in layer 2"),
            (IterationSchedule::Uniform(4), "4 corrections in layer 1"),
        ] {
            let error = by_hand(schedule).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    fn tables() -> impl Strategy<Value = Vec<Vec<f64>>> {
        prop::collection::vec(prop::collection::vec(0.0..2.0f64, 0..5), 1..8)
    }

    fn kept(schedule: &IterationSchedule, influence: &[Vec<f64>]) -> Vec<usize> {
        let kept = schedule.per_layer(influence.len());
        assert!(kept.iter().zip(influence).all(|(r, row)| *r <= row.len()));
        kept
    }

    proptest! {
        #[test]
        fn a_larger_threshold_keeps_a_subset(table in tables(), a in 0.0..2.0f64, b in 0.0..2.0f64) {
            let at = |tau| kept(&by_threshold(&table, tau).unwrap(), &table);
            let (low, high) = (at(a.min(b)), at(a.max(b)));
            prop_assert!(low.iter().zip(&high).all(|(low, high)| low >= high));
            for (r, row) in low.iter().zip(&table) {
                prop_assert!(row[..*r].iter().all(|value| *value >= a.min(b)));
                prop_assert!(row.get(*r).is_none_or(|value| *value < a.min(b)));
            }
        }

        #[test]
        fn a_budget_is_met_within_one_evaluation(table in tables(), a in 1.0..6.0f64, b in 1.0..6.0f64) {
            let layers = table.len();
            let full: usize = table.iter().map(|row| row.len() + 1).sum();
            let most = full as f64 / layers as f64;
            let (a, b) = (a.min(most), b.min(most));
            let at = |mean| kept(&by_budget(&table, mean).unwrap(), &table);
            let (low, high) = (at(a.min(b)), at(a.max(b)));
            prop_assert!(low.iter().zip(&high).all(|(low, high)| low <= high));
            let evaluations = (layers + low.iter().sum::<usize>()) as f64;
            let allowed = a.min(b) * layers as f64;
            prop_assert!(evaluations <= allowed);
            prop_assert!(evaluations == full as f64 || evaluations > allowed - 1.0);
        }
    }
}
