//! The visible character of each byte, as in GPT-2's vocabulary (Radford et al., 2019).
//!
//! Visible bytes of Latin-1 are themselves, and the others U+0100 onwards in order.

use std::sync::LazyLock;

static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100u32;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                let other = char::from_u32(next).expect("invariant: below the surrogates");
                next += 1;
                other
            }
        }
    })
});

/// The characters, by byte.
pub(super) fn characters() -> &'static [char; 256] {
    &CHARACTERS
}

/// Whether a character stands for a byte.
pub(super) fn is_visible(c: char) -> bool {
    matches!(c, '!'..='~' | '¡'..='¬' | '®'..='ÿ' | '\u{100}'..='\u{143}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_character() {
        let all = characters();
        assert_eq!(
            [all[0], all[0x20], all[0x0a], all[0xad]],
            ['Ā', 'Ġ', 'Ċ', 'Ń']
        );
        assert!(all.iter().all(|c| is_visible(*c)));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 256);
        assert!(!is_visible(' ') && !is_visible('▁') && !is_visible('\u{144}'));
    }
}
