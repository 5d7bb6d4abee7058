//! Multisets of n-grams as sorted lists.
//!
//! An n-gram of symbols is packed into one 128-bit number: four words of 32 bits, or six characters
//! of 21 bits. In a sorted list equal n-grams are neighbours, so the multiset operations that the
//! metrics are made of are merges: the intersection takes the lower of two counts, the union the
//! higher.

use std::cmp::Ordering;
use std::collections::HashMap;

/// Bits of a word's number: up to 4-grams.
pub(super) const WORD_BITS: usize = 32;
/// Bits of a Unicode scalar value: up to 6-grams.
pub(super) const CHARACTER_BITS: usize = 21;

/// Numbers the distinct words of the texts of one segment, in order of appearance.
#[derive(Default)]
pub(super) struct Vocabulary<'a>(HashMap<&'a str, u32>);

impl<'a> Vocabulary<'a> {
    /// The numbers of words.
    pub(super) fn ids(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        let id = |word| {
            let next = self.0.len() as u32;
            *self.0.entry(word).or_insert(next)
        };
        words.map(id).collect()
    }
}

/// The n-grams of a sequence, `[symbols - n + 1]`, sorted. Each symbol is below `2^bits`, and
/// `n * bits` is at most 128.
pub(super) fn ngrams(symbols: &[u32], n: usize, bits: usize) -> Vec<u128> {
    let mask = u128::MAX >> (128 - n * bits);
    let mut key = 0;
    let mut keys = Vec::with_capacity((symbols.len() + 1).saturating_sub(n));
    for (at, symbol) in symbols.iter().enumerate() {
        key = ((key << bits) | u128::from(*symbol)) & mask;
        if at + 1 >= n {
            keys.push(key);
        }
    }
    keys.sort_unstable();
    keys
}

/// `sum_g min(a(g), b(g))` over n-grams g.
pub(super) fn overlap(a: &[u128], b: &[u128]) -> u64 {
    let (mut i, mut j, mut matches) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let order = a[i].cmp(&b[j]);
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
        matches += u64::from(order == Ordering::Equal);
    }
    matches
}

/// The multiset with `max(a(g), b(g))` of each n-gram g.
pub(super) fn union(a: &[u128], b: &[u128]) -> Vec<u128> {
    let mut keys = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let order = a[i].cmp(&b[j]);
        keys.push(a[i].min(b[j]));
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    keys.extend_from_slice(&a[i..]);
    keys.extend_from_slice(&b[j..]);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_are_packed_and_counted() {
        let words = Vocabulary::default().ids("a b a b".split(' '));
        assert_eq!(words, [0, 1, 0, 1]);
        assert_eq!(ngrams(&words, 2, WORD_BITS), [1, 1, 1 << 32]);
        assert_eq!(ngrams(&words, 4, WORD_BITS).len(), 1);
        assert!(ngrams(&words, 5, 21).is_empty());
        let largest = [u32::from(char::MAX); 6];
        let expected = (0..6).fold(0, |key, _| (key << 21) | u128::from(u32::from(char::MAX)));
        assert_eq!(ngrams(&largest, 6, CHARACTER_BITS), [expected]);
        assert_eq!(ngrams(&[u32::MAX; 4], 4, WORD_BITS), [u128::MAX]);
    }

    #[test]
    fn merges_take_the_lower_and_the_higher_count() {
        let (a, b) = ([1, 1, 1, 2, 5], [1, 1, 3, 5, 5]);
        assert_eq!(overlap(&a, &b), 3); // 1, 1, 5
        assert_eq!(union(&a, &b), [1, 1, 1, 2, 3, 5, 5]);
        assert_eq!((overlap(&a, &[]), union(&[], &b)), (0, b.to_vec()));
    }
}
