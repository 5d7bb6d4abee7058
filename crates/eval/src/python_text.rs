//! Python's string methods where they differ from Rust's; the harness uses them for prompts and
//! word counts.

/// `str.isspace` of one character: Unicode's white space and the four information separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.lstrip()`.
pub fn lstrip(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// `str.rstrip()`.
pub fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `len(re.split(r"\s+", text))`: one more than the number of runs of white space, including those
/// at the ends.
pub fn count_words(text: &str) -> u64 {
    let mut words = 1;
    let mut within = false;
    for c in text.chars() {
        let space = is_space(c);
        words += u64::from(space && !within);
        within = space;
    }
    words
}

/// `str.capitalize()`: the first character in title case, the others in lower case.
pub fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // Whether a sigma is final depends on what precedes it, so the first character is converted to
    // lower case with the others and then removed.
    let lowered = text.to_lowercase();
    let first_lowered = first.to_lowercase().map(char::len_utf8).sum();
    let mut capitalized = title_case(first);
    capitalized.push_str(&lowered[first_lowered..]);
    capitalized
}

/// Title case equals upper case except for digraphs and ligatures, of which only the first letter
/// is capitalised, and for Georgian, which has capitals only in all-capital text.
fn title_case(c: char) -> String {
    let code = c as u32;
    let special = match code {
        0x1c4..=0x1cc => (code - 0x1c4) / 3 * 3 + 0x1c5, // Dž Lj Nj
        0x1f1..=0x1f3 => 0x1f2,                          // Dz
        0x10d0..=0x10ff => code,                         // Georgian has no initial capitals
        0x1f80..=0x1faf => code | 8,                     // Greek with iota below
        0x1fb3 | 0x1fc3 | 0x1ff3 => code + 9,
        0x1fbc | 0x1fcc | 0x1ffc => code,
        _ => 0,
    };
    if let Some(special) = char::from_u32(special).filter(|c| *c != '\0') {
        return special.into();
    }
    let mut upper = c.to_uppercase();
    match (c, upper.next()) {
        ('ŉ', _) | (_, None) => c.to_uppercase().collect(),
        (_, Some(first)) => std::iter::once(first)
            .chain(upper.flat_map(char::to_lowercase))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_equals_pythons() {
        // [hex(c) for c in range(0x110000) if chr(c).isspace()]
        let expected = [
            0x9, 0xa, 0xb, 0xc, 0xd, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x85, 0xa0, 0x1680, 0x2000,
            0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
            0x2029, 0x202f, 0x205f, 0x3000,
        ];
        let found: Vec<u32> = ('\0'..=char::MAX)
            .filter(|c| is_space(*c))
            .map(u32::from)
            .collect();
        assert_eq!(found, expected);
        assert_eq!(strip("\u{1f} a \u{a0}"), "a");
        assert_eq!((lstrip(" a "), rstrip(" a ")), ("a ", " a"));
    }

    #[test]
    fn word_counts_equal_pythons_split() {
        for (text, expected) in [
            ("", 1),
            ("a b", 2),
            (" a  b\n", 4),
            ("\n\n", 2),
            ("a\u{1c}b\u{3000}c", 3),
        ] {
            assert_eq!(count_words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn capitalisation_equals_pythons() {
        for (text, expected) in [
            ("", ""),
            ("he Is A Man. HE RUNS", "He is a man. he runs"),
            ("[title] X", "[title] x"),
            ("élan VITAL", "Élan vital"),
            ("ßA", "Ssa"),
            ("ŉA", "ʼNa"),
            ("ﬃX", "Ffix"),
            ("ǆX", "ǅx"),
            ("ΑΣ ΣΑΣ", "Ας σας"),
            ("İX", "İx"),
            ("ᾳΑ", "ᾼα"),
        ] {
            assert_eq!(capitalize(text), expected, "{text:?}");
        }
    }
}
