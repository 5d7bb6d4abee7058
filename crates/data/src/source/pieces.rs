//! Splits long text into pieces of bounded size.

/// The maximum number of bytes of text that are emitted, and tokenised, at a time.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// The position at which to split text that is longer than `limit` bytes.
///
/// After the last line end within the limit; if there is none, before the last space; otherwise
/// between two characters. A line end that is followed by white space is avoided if there is
/// another: the tokenizer's pattern may match across it, so that the pieces' tokens would differ
/// from those of the whole text.
fn cut_at(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let bytes = &text.as_bytes()[..limit];
    let mut any_line_end = None;
    for at in (0..limit).rev().filter(|&at| bytes[at] == b'\n') {
        // `at + 1` is within the text, which is longer than the limit.
        if !text.as_bytes()[at + 1].is_ascii_whitespace() {
            return at + 1;
        }
        any_line_end.get_or_insert(at + 1);
        // Search only the last quarter, to avoid very short pieces.
        if at < limit / 4 * 3 {
            break;
        }
    }
    if let Some(at) = any_line_end {
        return at;
    }
    match bytes.iter().rposition(|&byte| byte == b' ') {
        Some(at) if at > 0 => at,
        _ => text.floor_char_boundary(limit),
    }
}

/// The position at which to split text that is longer than a piece.
pub(crate) fn cut(text: &str) -> usize {
    cut_at(text, PIECE_BYTES)
}

/// The pieces of a text in memory, in order.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    parts(text, PIECE_BYTES)
}

/// Parts of at most `limit` bytes, split like pieces; the limit must be at least 4.
pub(crate) fn parts(mut text: &str, limit: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (part, rest) = text.split_at(cut_at(text, limit));
        text = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_one_piece() {
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("a\nb").collect::<Vec<_>>(), ["a\nb"]);
    }

    #[test]
    fn splits_at_line_ends_then_spaces_then_characters() {
        let lines = "0123456\n".repeat(PIECE_BYTES / 8) + "tail";
        assert_eq!(cut(&lines), PIECE_BYTES);
        let indented = "012345\n ".repeat(PIECE_BYTES / 8) + "tail";
        assert_eq!(cut(&indented), PIECE_BYTES - 1);
        let words = "0123456 ".repeat(PIECE_BYTES / 8) + "tail";
        assert_eq!(cut(&words), PIECE_BYTES - 1);
        let wide = "€".repeat(PIECE_BYTES);
        assert_eq!(cut(&wide), PIECE_BYTES / 3 * 3);
        for text in [lines, indented, words, wide] {
            assert_eq!(pieces(&text).collect::<String>(), text);
            assert!(pieces(&text).all(|piece| piece.len() <= PIECE_BYTES));
        }
    }
}
