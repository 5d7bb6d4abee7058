//! The tokenizer `13a` of BLEU: that of `mteval-v13a.pl`, as sacreBLEU's `tokenizer_13a.py` has it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::python_text::is_space;

/// Patterns and what they are replaced with, in order.
static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
    let rule = |pattern, replacement| {
        let pattern = Regex::new(pattern).expect("invariant: the pattern is fixed and valid");
        (pattern, replacement)
    };
    [
        // ASCII punctuation but for ' , - .
        rule(r"([{-~\[-` -&(-+:-@/])", " $1 "),
        // A period or comma, unless a digit stands before it ..
        rule(r"([^0-9])([.,])", "$1 $2 "),
        // .. or after it.
        rule(r"([.,])([^0-9])", " $1 $2"),
        // A dash after a digit.
        rule(r"([0-9])(-)", "$1 $2 "),
    ]
});

/// The text with one space between its tokens.
///
/// Line breaks count as spaces, but a hyphen before one is taken out with it. `&quot;`, `&amp;`,
/// `&lt;` and `&gt;` are read as the characters that they stand for.
pub fn tokenize_13a(text: &str) -> String {
    let mut text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    if text.contains('&') {
        for (entity, character) in [
            ("&quot;", "\""),
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
        ] {
            text = text.replace(entity, character);
        }
    }
    text = format!(" {text} ");
    for (pattern, replacement) in RULES.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&text, *replacement) {
            text = replaced;
        }
    }
    words(&text).collect::<Vec<_>>().join(" ")
}

/// Python's `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected values are printed by sacreBLEU 2.6.0: Tokenizer13a()(text).

    #[test]
    fn tokens_are_those_of_sacrebleu() {
        for (text, expected) in [
            ("", ""),
            ("Hello, world!", "Hello , world !"),
            ("It's 1,000.50 - or 5-6.", "It's 1,000.50 - or 5 - 6 ."),
            ("&amp;lt; &quot;a&quot;", "< \" a \""),
            ("a..b ...", "a . . b . . ."),
            ("well-\nknown\nword", "wellknown word"),
            ("<skipped>x", "x"),
            ("\u{3000}你好。\u{1c}x", "你好。 x"),
        ] {
            assert_eq!(tokenize_13a(text), expected, "{text:?}");
        }
    }
}
