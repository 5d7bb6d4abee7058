//! Cuts long text into pieces of bounded size.

/// The most bytes of text handed over, and tokenised, in one go.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// Where to cut text that is longer than a piece.
///
/// After the last line end within the first [`PIECE_BYTES`]; where there is none, before the last
/// space; where there is none either, between two characters. A line end that is followed by white
/// space is passed over if another is at hand: there the tokenizer's pattern may join what follows
/// to what precedes, and the pieces' tokens would differ from those of the whole.
pub(crate) fn cut(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let bytes = &text.as_bytes()[..PIECE_BYTES];
    let mut any_line_end = None;
    for at in (0..PIECE_BYTES).rev().filter(|&at| bytes[at] == b'\n') {
        // `at + 1` is within the text, for the text is longer than a piece.
        if !text.as_bytes()[at + 1].is_ascii_whitespace() {
            return at + 1;
        }
        any_line_end.get_or_insert(at + 1);
        // Look no further than a quarter of a piece, or the pieces of odd text become slivers.
        if at < PIECE_BYTES / 4 * 3 {
            break;
        }
    }
    if let Some(at) = any_line_end {
        return at;
    }
    match bytes.iter().rposition(|&byte| byte == b' ') {
        Some(at) if at > 0 => at,
        _ => text.floor_char_boundary(PIECE_BYTES),
    }
}

/// The pieces of a text that is in memory, in order.
pub(crate) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = text.split_at(cut(text));
        text = rest;
        Some(piece)
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
    fn cuts_at_line_ends_then_spaces_then_characters() {
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
