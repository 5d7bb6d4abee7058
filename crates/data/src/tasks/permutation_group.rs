//! Groups of permutations as multiplication tables.
//!
//! `(a b)(x) = a(b(x))`: the factor on the right acts first.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The groups that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupName {
    /// All permutations of three points: order 6, solvable.
    #[default]
    S3,
    /// The even permutations of five points: order 60, simple. Its word problem is complete for NC1
    /// (Barrington, 1989), so that constant depth is believed not to suffice.
    A5,
    /// All permutations of five points: order 120, not solvable either.
    S5,
}

impl GroupName {
    /// The group.
    pub fn group(self) -> &'static PermutationGroup {
        static S3: LazyLock<PermutationGroup> = LazyLock::new(|| PermutationGroup::new(3, false));
        static A5: LazyLock<PermutationGroup> = LazyLock::new(|| PermutationGroup::new(5, true));
        static S5: LazyLock<PermutationGroup> = LazyLock::new(|| PermutationGroup::new(5, false));
        match self {
            Self::S3 => &S3,
            Self::A5 => &A5,
            Self::S5 => &S5,
        }
    }
}

/// A group of permutations. Elements are numbered in the lexicographic order of their images, from
/// the identity, 0.
#[derive(Debug)]
pub struct PermutationGroup {
    elements: Vec<Vec<u8>>,
    /// Row by row.
    products: Vec<u8>,
}

impl PermutationGroup {
    /// All permutations of so many points, or the even ones.
    fn new(points: u8, even: bool) -> Self {
        let mut elements = permutations(&(0..points).collect::<Vec<_>>());
        elements.retain(|element| !even || inversions(element).is_multiple_of(2));
        let numbers: HashMap<&[u8], u8> = elements
            .iter()
            .enumerate()
            .map(|(number, element)| (element.as_slice(), number as u8))
            .collect();
        let product = |a: &[u8], b: &[u8]| -> u8 {
            let image: Vec<u8> = b.iter().map(|x| a[*x as usize]).collect();
            numbers[image.as_slice()]
        };
        let products = elements
            .iter()
            .flat_map(|a| elements.iter().map(move |b| (a, b)))
            .map(|(a, b)| product(a, b))
            .collect();
        Self { elements, products }
    }

    /// Elements.
    pub fn order(&self) -> usize {
        self.elements.len()
    }

    /// `a b`, of elements by number.
    pub fn product(&self, a: u32, b: u32) -> u32 {
        u32::from(self.products[a as usize * self.order() + b as usize])
    }

    /// An element in cycles of the points 1, 2, ..: `(123)`, or `e`.
    pub fn symbol(&self, element: u32) -> String {
        let image = &self.elements[element as usize];
        let mut seen = vec![false; image.len()];
        let mut text = String::new();
        for start in 0..image.len() {
            if seen[start] || image[start] as usize == start {
                continue;
            }
            text.push('(');
            let mut point = start;
            while !seen[point] {
                seen[point] = true;
                write!(text, "{}", point + 1).expect("invariant: strings take all that is written");
                point = image[point] as usize;
            }
            text.push(')');
        }
        match text.is_empty() {
            true => "e".to_owned(),
            false => text,
        }
    }
}

/// All arrangements of the points, in lexicographic order.
fn permutations(points: &[u8]) -> Vec<Vec<u8>> {
    if points.is_empty() {
        return vec![Vec::new()];
    }
    let begun = |(at, first): (usize, &u8)| {
        let rest = [&points[..at], &points[at + 1..]].concat();
        let tails = permutations(&rest).into_iter();
        let whole = tails.map(|tail| [&[*first][..], &tail].concat());
        whole.collect::<Vec<_>>()
    };
    points.iter().enumerate().flat_map(begun).collect()
}

fn inversions(image: &[u8]) -> usize {
    let later = |at: usize| image[at + 1..].iter().filter(move |x| **x < image[at]);
    (0..image.len()).map(|at| later(at).count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_by_hand() {
        let group = GroupName::S3.group();
        let symbols: Vec<String> = (0..6).map(|element| group.symbol(element)).collect();
        assert_eq!(symbols, ["e", "(23)", "(12)", "(123)", "(132)", "(13)"]);
        // Worked out with paper: the row acts after the column.
        let table = [
            ["e", "(23)", "(12)", "(123)", "(132)", "(13)"],
            ["(23)", "e", "(132)", "(13)", "(12)", "(123)"],
            ["(12)", "(123)", "e", "(23)", "(13)", "(132)"],
            ["(123)", "(12)", "(13)", "(132)", "e", "(23)"],
            ["(132)", "(13)", "(23)", "e", "(123)", "(12)"],
            ["(13)", "(132)", "(123)", "(12)", "(23)", "e"],
        ];
        for (a, row) in (0..).zip(table) {
            for (b, expected) in (0..).zip(row) {
                assert_eq!(group.symbol(group.product(a, b)), expected, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_axioms_hold() {
        for (name, order) in [
            (GroupName::S3, 6),
            (GroupName::A5, 60),
            (GroupName::S5, 120),
        ] {
            let group = name.group();
            assert_eq!(group.order(), order);
            let elements = || 0..order as u32;
            for a in elements() {
                assert_eq!((group.product(a, 0), group.product(0, a)), (a, a));
                // Closed, and every equation a x = b has one solution: so there are inverses.
                let mut row: Vec<u32> = elements().map(|b| group.product(a, b)).collect();
                row.sort();
                assert_eq!(row, elements().collect::<Vec<_>>());
                for b in elements() {
                    let ab = group.product(a, b);
                    for c in elements() {
                        let bc = group.product(b, c);
                        assert_eq!(group.product(ab, c), group.product(a, bc));
                    }
                }
            }
        }
    }

    #[test]
    fn a5_is_simple_and_s3_is_not() {
        // A normal subgroup is a union of conjugacy classes that is closed. The closure of each class
        // is the whole group exactly in a simple one.
        let closures = |name: GroupName| -> Vec<usize> {
            let group = name.group();
            let elements = || 0..group.order() as u32;
            let inverse = |a: u32| elements().find(|b| group.product(a, *b) == 0).unwrap();
            let closure = |a: u32| {
                let conjugate = |g: u32| group.product(group.product(g, a), inverse(g));
                let class: Vec<u32> = elements().map(conjugate).collect();
                let mut reached = vec![false; group.order()];
                let mut open = vec![0];
                while let Some(at) = open.pop() {
                    if !std::mem::replace(&mut reached[at as usize], true) {
                        open.extend(class.iter().map(|b| group.product(at, *b)));
                    }
                }
                reached.into_iter().filter(|is| *is).count()
            };
            elements().skip(1).map(closure).collect()
        };
        assert!(closures(GroupName::A5).iter().all(|order| *order == 60));
        assert_eq!(closures(GroupName::S3), [6, 6, 3, 3, 6]);
    }
}
