//! Where the names of points go so that none covers another.
//!
//! Names are placed one after the other, each where it overlaps least with what is there already:
//! points, error bars, names. Places are tried on growing rings around the point, so a lonely point has
//! its name beside it, and one in a crowd at some distance, to be joined by a line.

/// Pixels, y downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Distances of the rings from the point, and how many places are tried on each.
const RINGS: [f64; 9] = [9.0, 16.0, 26.0, 40.0, 58.0, 80.0, 110.0, 150.0, 200.0];
const PLACES: usize = 16;
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
    pub(super) fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            x.clamp(self.left, self.right()),
            y.clamp(self.top, self.bottom()),
        )
    }
}

/// Areas for names of these sizes beside their points, within bounds and clear of the taken areas as
/// far as possible.
pub(super) fn place(
    points: &[(f64, f64)],
    sizes: &[(f64, f64)],
    taken: &[Area],
    bounds: &Area,
) -> Vec<Area> {
    let mut taken = taken.to_vec();
    let mut placed = Vec::new();
    for (point, size) in points.iter().zip(sizes) {
        let cost = |area: &Area, distance: f64| {
            let overlap: f64 = taken.iter().map(|other| area.overlap(other)).sum();
            distance + OVERLAP * (overlap + area.beyond(bounds))
        };
        let mut best: Option<(f64, Area)> = None;
        for distance in RINGS {
            for number in 0..PLACES {
                let area = beside(*point, *size, distance, number);
                let cost = cost(&area, distance);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, area));
                }
            }
        }
        if let Some((_, area)) = best {
            taken.push(area);
            placed.push(area);
        }
    }
    placed
}

/// The area whose near edge is `distance` away from a point in one of the directions, the first to the
/// right.
fn beside((x, y): (f64, f64), (width, height): (f64, f64), distance: f64, number: usize) -> Area {
    let angle = number as f64 / PLACES as f64 * std::f64::consts::TAU;
    let (down, along) = angle.sin_cos();
    let center_x = x + along * (distance + width / 2.0);
    let center_y = y - down * (distance + height / 2.0);
    Area {
        // Whole pixels, so that sums are exact and equal places cost the same.
        left: (center_x - width / 2.0).round(),
        top: (center_y - height / 2.0).round(),
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
        assert_eq!((placed[0].left, placed[0].top), (109.0, 93.0));
        // At the right edge it goes elsewhere, and does not cover its point.
        let placed = place(&[(790.0, 100.0)], &[(50.0, 14.0)], &[], &BOUNDS);
        assert_eq!(placed[0].beyond(&BOUNDS), 0.0, "{placed:?}");
        assert_ne!(placed[0].nearest((790.0, 100.0)), (790.0, 100.0));
    }

    #[test]
    fn thirteen_models_in_one_place_can_be_read() {
        let points: Vec<(f64, f64)> = (0..13)
            .map(|i| (400.0 + f64::from(i), 150.0 - f64::from(i % 3)))
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
}
