//! Where the names of points go so that none covers another.
//!
//! Points that lie above each other have their names in one column beside them, in the same order, so
//! that lines from the points to their names do not cross. A name is as close to the height of its point
//! as its neighbours allow: the least sum of squared distances, by isotonic regression (pool adjacent
//! violators; Barlow et al., *Statistical Inference under Order Restrictions*, 1972). A column is to the
//! right or to the left, where it overlaps less with points, bars and other names.

/// Pixels, y downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// Points within so many pixels of the first across are named in one column.
const COLUMN: f64 = 14.0;
/// Distances of a column from its points that are tried.
const GAPS: [f64; 3] = [14.0, 26.0, 44.0];
/// What a square pixel of overlap is worth in pixels of distance.
const OVERLAP: f64 = 20.0;

impl Area {
    fn right(&self) -> f64 {
        self.left + self.width
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn overlap(&self, other: &Self) -> f64 {
        let width = self.right().min(other.right()) - self.left.max(other.left);
        let height = self.bottom().min(other.bottom()) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    /// The square pixels of it that lie outside.
    fn beyond(&self, bounds: &Self) -> f64 {
        self.width * self.height - self.overlap(bounds)
    }

    /// Its point nearest to another.
    pub(crate) fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            x.clamp(self.left, self.right()),
            y.clamp(self.top, self.bottom()),
        )
    }
}

/// Areas for names of these sizes beside their points, in the order of the points, within bounds and
/// clear of the taken areas as far as possible.
pub(crate) fn place(
    points: &[(f64, f64)],
    sizes: &[(f64, f64)],
    taken: &[Area],
    bounds: &Area,
) -> Vec<Area> {
    let mut taken = taken.to_vec();
    let mut placed: Vec<Option<Area>> = vec![None; points.len()];
    for column in columns(points) {
        let heights = spread(&column, points, sizes, bounds);
        let mut best: Option<(f64, Vec<Area>)> = None;
        for gap in GAPS {
            for to_the_right in [true, false] {
                let areas: Vec<Area> = column
                    .iter()
                    .zip(&heights)
                    .map(|(at, middle)| {
                        beside(points[*at].0, sizes[*at], gap, to_the_right, *middle)
                    })
                    .collect();
                let overlap = |area: &Area| -> f64 {
                    let others = taken.iter().map(|other| area.overlap(other));
                    others.sum::<f64>() + area.beyond(bounds)
                };
                let cost = gap + OVERLAP * areas.iter().map(overlap).sum::<f64>();
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, areas));
                }
            }
        }
        for (at, area) in column
            .iter()
            .zip(best.into_iter().flat_map(|(_, areas)| areas))
        {
            taken.push(area);
            placed[*at] = Some(area);
        }
    }
    placed.into_iter().flatten().collect()
}

/// The points of each column from the top, columns from the left.
fn columns(points: &[(f64, f64)]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0));
    let mut columns: Vec<Vec<usize>> = Vec::new();
    for at in order {
        match columns.last_mut() {
            Some(column) if points[at].0 - points[column[0]].0 <= COLUMN => column.push(at),
            _ => columns.push(vec![at]),
        }
    }
    for column in &mut columns {
        column.sort_by(|a, b| points[*a].1.total_cmp(&points[*b].1));
    }
    columns
}

/// The middles of the names of a column, from the top, that do not overlap and are as close as possible
/// to their points.
fn spread(
    column: &[usize],
    points: &[(f64, f64)],
    sizes: &[(f64, f64)],
    bounds: &Area,
) -> Vec<f64> {
    let height = column.iter().map(|at| sizes[*at].1).fold(0.0, f64::max);
    // Less its place times the height, a middle must not be less than the one above.
    let wanted = column.iter().enumerate();
    let wanted = wanted.map(|(place, at)| points[*at].1 - place as f64 * height);
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for value in wanted {
        pools.push((value, 1));
        while let [.., (above, more), (below, some)] = pools[..]
            && above > below
        {
            let all = more + some;
            let mean = (above * more as f64 + below * some as f64) / all as f64;
            pools.truncate(pools.len() - 2);
            pools.push((mean, all));
        }
    }
    let levels = pools
        .into_iter()
        .flat_map(|(value, count)| std::iter::repeat_n(value, count));
    let last = bounds.bottom() - height / 2.0 - (column.len() as f64 - 1.0) * height;
    let middles = levels.enumerate().map(|(place, level)| {
        // Into the bounds; a column that is higher than they are begins at their top.
        let level = level.min(last).max(bounds.top + height / 2.0);
        level + place as f64 * height
    });
    middles.collect()
}

fn beside(x: f64, (width, height): (f64, f64), gap: f64, to_the_right: bool, middle: f64) -> Area {
    let left = match to_the_right {
        true => x + gap,
        false => x - gap - width,
    };
    Area {
        // Whole pixels, so that sums are exact and equal places cost the same.
        left: left.round(),
        top: (middle - height / 2.0).round(),
        width,
        height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Area = Area {
        left: 0.0,
        top: 0.0,
        width: 800.0,
        height: 300.0,
    };

    #[test]
    fn a_lonely_name_stands_to_the_right() {
        let placed = place(&[(100.0, 100.0)], &[(50.0, 14.0)], &[], &BOUNDS);
        assert_eq!((placed[0].left, placed[0].top), (114.0, 93.0));
        // At the right edge it stands to the left.
        let placed = place(&[(790.0, 100.0)], &[(50.0, 14.0)], &[], &BOUNDS);
        assert_eq!((placed[0].left, placed[0].top), (726.0, 93.0));
    }

    #[test]
    fn names_keep_the_order_of_their_points_and_are_as_close_as_they_can_be() {
        let points = [(100.0, 50.0), (100.0, 200.0), (101.0, 204.0), (99.0, 202.0)];
        let placed = place(&points, &[(50.0, 10.0); 4], &[], &BOUNDS);
        let middles: Vec<f64> = placed.iter().map(|area| area.top + 5.0).collect();
        // Three around 202, ten apart, and the first where it is.
        assert_eq!(middles, [50.0, 192.0, 212.0, 202.0]);
    }

    #[test]
    fn thirteen_models_in_one_place_can_be_read() {
        let points: Vec<(f64, f64)> = (0..13)
            .map(|i| (400.0 + f64::from(i), 20.0 - f64::from(i % 3)))
            .collect();
        let sizes = vec![(110.0, 14.0); 13];
        let placed = place(&points, &sizes, &[], &BOUNDS);
        for (at, area) in placed.iter().enumerate() {
            assert_eq!(area.beyond(&BOUNDS), 0.0, "{area:?}");
            for other in &placed[..at] {
                assert_eq!(area.overlap(other), 0.0, "{area:?} {other:?}");
            }
        }
    }

    #[test]
    fn neighbouring_columns_take_different_sides() {
        let points = [(100.0, 100.0), (160.0, 100.0)];
        let taken: Vec<Area> = points
            .iter()
            .map(|(x, y)| Area {
                left: x - 5.0,
                top: y - 5.0,
                width: 10.0,
                height: 10.0,
            })
            .collect();
        let placed = place(&points, &[(80.0, 14.0); 2], &taken, &BOUNDS);
        assert!(
            placed[0].right() < 100.0 && placed[1].left > 160.0,
            "{placed:?}"
        );
    }
}
