//! The Porter stemmer (Porter, Program 14(3), 1980) with NLTK's extensions, which rouge-score stems
//! with: `nltk.stem.porter.PorterStemmer` in its default mode.
//!
//! A word is `[C](VC){m}[V]`, where C and V are runs of consonants and of vowels; m is its measure. A
//! rule replaces the first suffix of its step that the word has, if what is left of the word meets the
//! rule's condition. If it does not, no further suffix is tried.

/// Words whose stem no rule finds.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a word of ASCII letters in lower case and digits.
pub fn stem(word: &str) -> String {
    let irregular = IRREGULAR.iter().find(|(form, _)| *form == word);
    if let Some((_, stem)) = irregular {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let steps = [
        step_1a, step_1b, step_1c, step_2, step_3, step_4, step_5a, step_5b,
    ];
    steps.iter().fold(word.to_owned(), |word, step| step(word))
}

/// Whether each letter is a consonant: no vowel, and for y one that does not follow a consonant.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    let mut before = false;
    word.bytes().map(move |letter| {
        before = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !before,
            _ => true,
        };
        before
    })
}

/// m: how often a consonant follows a vowel.
fn measure(word: &str) -> usize {
    let letters: Vec<bool> = consonants(word).collect();
    let pairs = letters.windows(2);
    pairs.filter(|pair| *pair == [false, true]).count()
}

fn has_vowel(word: &str) -> bool {
    consonants(word).any(|consonant| !consonant)
}

fn ends_in_consonant(word: &str) -> bool {
    consonants(word).last() == Some(true)
}

/// `*d`: a double consonant at the end.
fn ends_in_double_consonant(word: &str) -> bool {
    let [.., a, b] = word.as_bytes() else {
        return false;
    };
    a == b && ends_in_consonant(word)
}

/// `*o`: consonant, vowel, consonant at the end, the last not w, x or y; NLTK adds words of a vowel and
/// a consonant.
fn ends_in_cvc(word: &str) -> bool {
    let letters: Vec<bool> = consonants(word).collect();
    match letters[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

/// Replaces the first suffix that the word has, if the condition holds for what stands before it.
fn replace(word: String, suffixes: &[(&str, &str)], condition: impl Fn(&str) -> bool) -> String {
    let mut found = suffixes.iter();
    let found = found.find_map(|(suffix, by)| Some((word.strip_suffix(suffix)?, by)));
    match found {
        Some((stem, by)) if condition(stem) => format!("{stem}{by}"),
        _ => word,
    }
}

fn step_1a(word: String) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return format!("{}ie", &word[..1]);
    }
    let suffixes = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    replace(word, &suffixes, |_| true)
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if stem.len() == 1 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return match measure(stem) > 0 {
            true => format!("{stem}ee"),
            false => word,
        };
    }
    let stem = word.strip_suffix("ed").or(word.strip_suffix("ing"));
    let Some(stem) = stem.filter(|stem| has_vowel(stem)) else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        format!("{stem}e")
    } else if ends_in_double_consonant(stem) {
        let kept = stem.ends_with(['l', 's', 'z']);
        stem[..stem.len() - usize::from(!kept)].to_owned()
    } else if measure(stem) == 1 && ends_in_cvc(stem) {
        format!("{stem}e")
    } else {
        stem.to_owned()
    }
}

fn step_1c(word: String) -> String {
    let condition = |stem: &str| stem.len() > 1 && ends_in_consonant(stem);
    replace(word, &[("y", "i")], condition)
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return step_2(format!("{stem}al"));
    }
    // The l belongs to the stem, so that "theology" and "theological" have the same one.
    if let Some(stem) = word.strip_suffix("ogi").filter(|stem| stem.ends_with('l')) {
        return match measure(stem) > 0 {
            true => format!("{stem}og"),
            false => word,
        };
    }
    const SUFFIXES: &[(&str, &str)] = &[
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
    ];
    replace(word, SUFFIXES, |stem| measure(stem) > 0)
}

fn step_3(word: String) -> String {
    const SUFFIXES: &[(&str, &str)] = &[
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    replace(word, SUFFIXES, |stem| measure(stem) > 0)
}

fn step_4(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ion") {
        return match measure(stem) > 1 && stem.ends_with(['s', 't']) {
            true => stem.to_owned(),
            false => word,
        };
    }
    const SUFFIXES: &[(&str, &str)] = &[
        ("al", ""),
        ("ance", ""),
        ("ence", ""),
        ("er", ""),
        ("ic", ""),
        ("able", ""),
        ("ible", ""),
        ("ant", ""),
        ("ement", ""),
        ("ment", ""),
        ("ent", ""),
        ("ou", ""),
        ("ism", ""),
        ("ate", ""),
        ("iti", ""),
        ("ous", ""),
        ("ive", ""),
        ("ize", ""),
    ];
    replace(word, SUFFIXES, |stem| measure(stem) > 1)
}

fn step_5a(word: String) -> String {
    let condition = |stem: &str| match measure(stem) {
        0 => false,
        1 => !ends_in_cvc(stem),
        _ => true,
    };
    replace(word, &[("e", "")], condition)
}

fn step_5b(word: String) -> String {
    match word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        true => word[..word.len() - 1].to_owned(),
        false => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A longer list is in tests/texts/stems.txt. The expected values are NLTK's.

    #[test]
    fn stems_are_nltks() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ties", "tie"),
            ("ponies", "poni"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("hopping", "hop"),
            ("filing", "file"),
            ("falling", "fall"),
            ("died", "die"),
            ("enjoy", "enjoy"),
            ("generalization", "gener"),
            ("theology", "theolog"),
            ("controll", "control"),
            ("skies", "sky"),
            ("succeed", "succeed"),
            ("yyyyed", "yyyi"),
            ("2024s", "2024"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn measures_are_those_of_the_paper() {
        for (m, words) in [
            (0, ["tr", "ee", "tree", "y", "by"].as_slice()),
            (1, &["trouble", "oats", "trees", "ivy"]),
            (2, &["troubles", "private", "oaten", "orrery"]),
        ] {
            for word in words {
                assert_eq!(measure(word), m, "{word}");
            }
        }
    }
}
