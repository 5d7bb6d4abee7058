//! The first sentence of a documentation comment, as plain text.
//!
//! Links become their text, marks of emphasis and HTML tags are removed, code keeps its backticks. A function's
//! signature in front, as in `` `abs(x)`—Removes the sign ``, is removed too. The sentence starts with a capital,
//! unless with code, and a sentence without a full stop gets one.

/// Abbreviations whose full stop ends no sentence, without that stop.
const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "cf", "vs", "approx", "resp", "incl", "no", "fig", "eq", "ca", "viz", "sec",
];

/// The tags that are removed, in small letters; other text in angle brackets may be a type.
const TAGS: &[&str] = &[
    "a", "b", "br", "code", "div", "em", "i", "p", "small", "span", "strong", "sub", "sup", "u",
];

/// The first sentence of the first paragraph; `None` if the text starts with something else: a heading, a
/// list, a table, a quotation or a code block.
pub(super) fn first_sentence(docs: &str) -> Option<String> {
    let lines = docs.lines().map(str::trim);
    let lines = lines.skip_while(|line| line.is_empty());
    let paragraph: Vec<&str> = lines
        .take_while(|line| !line.is_empty() && !starts_block(line))
        .collect();
    let text = plain(&paragraph.join(" "));
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let text = without_signature(&text);
    let mut sentence = text[..end(text)].to_owned();
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let last = sentence.chars().last()?;
    if last.is_alphanumeric() || matches!(last, '`' | ')' | ']' | '>') {
        sentence.push('.');
    }
    Some(sentence)
}

/// The text after code and a dash or colon at its start.
fn without_signature(text: &str) -> &str {
    let after = text.strip_prefix('`').and_then(|rest| rest.split_once('`'));
    let Some((_, after)) = after else {
        return text;
    };
    let dashes = ["—", " — ", " – ", " - ", ": "];
    let rest = dashes.iter().find_map(|dash| after.strip_prefix(dash));
    rest.map_or(text, str::trim_start)
}

/// Whether a line starts a block other than a paragraph, or ends a heading.
fn starts_block(line: &str) -> bool {
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered = number.len() < line.len() && number.starts_with(". ");
    let is_underline = line.len() > 2 && line.bytes().all(|byte| matches!(byte, b'=' | b'-'));
    let starts = ["```", "~~~", "#", "- ", "* ", "+ ", "|", ">", "!["];
    is_numbered || is_underline || starts.iter().any(|start| line.starts_with(start))
}

/// The end of the first sentence of a text in one line.
fn end(text: &str) -> usize {
    let mut in_code = false;
    for (at, c) in text.char_indices() {
        if c == '`' {
            in_code = !in_code;
        }
        if in_code || !matches!(c, '.' | '!' | '?') {
            continue;
        }
        let rest = text[at + 1..].trim_start_matches(['"', '\'', ')']);
        let next = match rest.strip_prefix(' ') {
            Some(next) => next.chars().next(),
            None if rest.is_empty() => return text.len() - rest.len(),
            None => continue,
        };
        let word = text[..at].rsplit(' ').next().unwrap_or_default();
        let word = word.trim_start_matches(['(', '[']).to_lowercase();
        // A sentence that starts with a lower-case letter is mostly none.
        let continues = next.is_some_and(char::is_lowercase);
        if !continues && !ABBREVIATIONS.contains(&word.as_str()) {
            return text.len() - rest.len();
        }
    }
    text.len()
}

/// Markdown without links, bold marks, tags and escapes.
fn plain(markdown: &str) -> String {
    let mut plain = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '`' => code(rest, &mut plain),
            '[' => link(rest, &mut plain),
            '<' => tag(rest, &mut plain),
            '*' => emphasis(rest, &mut plain),
            '\\' if rest[1..].starts_with(|next: char| next.is_ascii_punctuation()) => {
                plain.push_str(&rest[1..2]);
                2
            }
            _ => {
                plain.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    plain
}

/// Copies code with its backticks; a run of several becomes one. Returns the bytes taken.
fn code(text: &str, plain: &mut String) -> usize {
    let run = text.len() - text.trim_start_matches('`').len();
    let inner = &text[run..];
    match inner.find(&text[..run]) {
        Some(length) => {
            plain.push('`');
            plain.push_str(inner[..length].trim());
            plain.push('`');
            length + 2 * run
        }
        None => {
            plain.push_str(&text[..run]);
            run
        }
    }
}

/// Copies the text of a link, without its address. Brackets that are no link are copied.
fn link(text: &str, plain: &mut String) -> usize {
    let Some(inner) = bracketed(text, '[', ']') else {
        plain.push('[');
        return 1;
    };
    let after = &text[inner.len() + 2..];
    let address = match after.chars().next() {
        Some('(') => bracketed(after, '(', ')'),
        Some('[') => bracketed(after, '[', ']'),
        _ => None,
    };
    match address {
        Some(address) => {
            plain.push_str(&self::plain(inner));
            inner.len() + address.len() + 4
        }
        // A link to an item by its name, and not an index as in `a[i]`.
        None if is_path(inner) && !plain.ends_with(char::is_alphanumeric) => {
            plain.push_str(inner);
            inner.len() + 2
        }
        None => {
            plain.push('[');
            1
        }
    }
}

/// Whether the text of a link is the path of an item, or code.
fn is_path(link: &str) -> bool {
    let is_code = link.len() > 2 && link.starts_with('`') && link.ends_with('`');
    let is_name = link.len() > 1 && link.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '(' | ')' | '!');
    is_code || (is_name && link.chars().all(in_path))
}

/// The text between a bracket at the start and the one that closes it.
fn bracketed(text: &str, open: char, close: char) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(&text[open.len_utf8()..at]);
            }
        }
    }
    None
}

/// Drops a tag, and the angle brackets of an address.
fn tag(text: &str, plain: &mut String) -> usize {
    let inner = text[1..].split_once('>').map(|(inner, _)| inner);
    let Some(inner) = inner else {
        plain.push('<');
        return 1;
    };
    if inner.starts_with("http") {
        plain.push_str(inner);
        return inner.len() + 2;
    }
    let name = inner.trim_matches('/').split([' ', '/']).next();
    if name.is_some_and(|name| TAGS.contains(&name)) {
        return inner.len() + 2;
    }
    plain.push('<');
    1
}

/// Drops asterisks that mark emphasis, which touch a word; others are operators.
fn emphasis(text: &str, plain: &mut String) -> usize {
    let run = text.len() - text.trim_start_matches('*').len();
    let before = plain.chars().last().is_none_or(char::is_whitespace);
    let after = text[run..].chars().next().is_none_or(char::is_whitespace);
    if before && after {
        plain.push_str(&text[..run]);
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_plain_text() {
        // From the documentation of the standard library and of registry crates, and edge cases.
        for (docs, expected) in [
            (
                " Returns the number of elements in the vector, also referred to\n as its 'length'.\n\n # Examples",
                "Returns the number of elements in the vector, also referred to as its 'length'.",
            ),
            (
                "Creates a [`Vec<T>`] from the array (see [the book](https://x.org/a(b).html)). More.",
                "Creates a `Vec<T>` from the array (see the book).",
            ),
            (
                "Splits **all** of `a. B` at *once*! Next.",
                "Splits all of `a. B` at once!",
            ),
            (
                "Rounds up, e.g. 2.5 to 3. Then more.",
                "Rounds up, e.g. 2.5 to 3.",
            ),
            (
                "Uses crates (cf. Serde). Others too.",
                "Uses crates (cf. Serde).",
            ),
            ("Computes `a` * b\n# Panics", "Computes `a` * b."),
            (
                "Checks [0, 1] and a\\_b<br>\n- one\n- two",
                "Checks [0, 1] and a_b.",
            ),
            ("Converts to [bytes][Self::as_bytes]", "Converts to bytes."),
            ("Sets ``a`b`` in Vec<T>", "Sets `a`b` in Vec<T>."),
            (
                "An unclosed [bracket and ` tick",
                "An unclosed [bracket and ` tick.",
            ),
            ("Is it empty? Yes.", "Is it empty?"),
            (
                "creates a new [FuncOp] or [Op::new()], not [i] of a[index]",
                "Creates a new FuncOp or Op::new(), not [i] of a[index].",
            ),
            (
                "`fsetxattr(fd, name)`—Set attributes on an open file.",
                "Set attributes on an open file.",
            ),
            ("`x` - the width", "The width."),
            ("`x` is the width", "`x` is the width."),
            ("Prints \"done.\" Then stops.", "Prints \"done.\""),
            ("Ümläute: ß. 日本語です。", "Ümläute: ß."),
        ] {
            assert_eq!(first_sentence(docs).as_deref(), Some(expected), "{docs}");
        }
    }

    #[test]
    fn other_blocks_are_no_sentence() {
        for docs in [
            "",
            " \n ",
            "# Safety\nMust be called once.",
            "```\ncode\n```",
            "- a list",
            "1. a list",
            "| a | table |",
            "> quoted",
        ] {
            assert_eq!(first_sentence(docs), None, "{docs}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(docs in r"([`\[\]()*<>\\.!? \n]|br|é|e\.g\.|\PC){0,60}") {
            let _ = first_sentence(&docs);
        }
    }
}
