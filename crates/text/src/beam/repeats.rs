//! Tokens that would repeat an n-gram.

/// The tokens after which the text would contain an n-gram of size `n` twice: those that followed the text's
/// last n - 1 tokens where these occurred before. None if `n` is 0.
pub(super) fn repeated(text: &[u32], n: usize) -> impl Iterator<Item = u32> {
    let last = n
        .checked_sub(1)
        .and_then(|n| text.len().checked_sub(n))
        .map_or(&[][..], |from| &text[from..]);
    // Shorter texts have no such n-gram, and `windows` refuses the size 0.
    let windows = text.windows(n.max(1)).filter(move |_| n > 0);
    windows.filter_map(move |ngram| {
        let (next, before) = ngram.split_last()?;
        (before == last).then_some(*next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u32], n: usize) -> Vec<u32> {
        repeated(text, n).collect()
    }

    #[test]
    fn a_token_that_followed_the_same_tokens_before_is_repeated() {
        // After "5 6" came 7 and then 8; after "6" came both, too.
        let text = [5, 6, 7, 5, 6, 8, 5, 6];
        assert_eq!(found(&text, 3), [7, 8]);
        assert_eq!(found(&text, 2), [7, 8]);
        // "8 5 6" has not occurred before.
        assert_eq!(found(&text, 4), [] as [u32; 0]);
        assert_eq!(found(&text, 1), text);
    }

    #[test]
    fn short_texts_and_size_0_repeat_nothing() {
        let none: [u32; 0] = [];
        assert_eq!(found(&[4, 4], 0), none);
        assert_eq!(found(&[4, 4], 3), none);
        assert_eq!(found(&[], 1), none);
        assert_eq!(found(&[4, 4], 2), [4]);
    }
}
