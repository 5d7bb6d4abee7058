//! Mutations of a file's bytes: random ones, and ones specific to text, numbers and JSON.

use serde_json::{Map, Value};

use crate::torture::random::Random;

/// Boundary numbers of types, limits and arithmetic.
pub(super) const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "255",
    "65536",
    "1048577",
    "16777216",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627776",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "0.5",
    "-0.0",
    "1e-320",
    "1e30",
    "1e308",
    "1e309",
    "-1e308",
    "NaN",
    "inf",
];

/// Text with unusual characters and syntax.
const WORDS: &[&str] = &[
    "",
    "\0",
    "\u{feff}",
    "\u{fffd}",
    "\r\n",
    "\\ud800",
    "\\u0000",
    "../../../../etc/passwd",
    "/dev/zero",
    "(a*)*b",
    "$A $B",
    "<|endoftext|>",
    "{}",
    "[]",
    "null",
    "true",
    "\"\"",
    "{\"a\":",
    "AAAAAAAAAAAA",
    "/////w==",
    "\u{202e}\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
];

/// Applies one to three mutations of any kind.
pub(super) fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        bytes = match random.below(16) {
            0..=2 => flip(bytes, random),
            3 => cut(bytes, random),
            4 => zeros(bytes, random),
            5 => remove(bytes, random),
            6 => repeat(bytes, random),
            7 => insert_bytes(bytes, random),
            8 | 9 => insert_word(bytes, random),
            10..=12 => number(bytes, random),
            _ => json(bytes, random),
        };
    }
    bytes
}

fn at(bytes: &[u8], random: &mut Random) -> usize {
    random.below(bytes.len() as u64 + 1) as usize
}

/// A range of at most `most` bytes.
fn range(bytes: &[u8], most: u64, random: &mut Random) -> std::ops::Range<usize> {
    let from = at(bytes, random);
    let to = (from + random.below(most) as usize).min(bytes.len());
    from..to
}

fn flip(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.below(bytes.len() as u64) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
    bytes
}

fn cut(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    bytes.truncate(at(&bytes, random));
    bytes
}

fn zeros(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let value = [0, 0xff, b' ', b'9'][random.below(4) as usize];
    let range = range(&bytes, 64, random);
    bytes[range].fill(value);
    bytes
}

fn remove(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let range = range(&bytes, 64, random);
    bytes.drain(range);
    bytes
}

fn repeat(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let range = range(&bytes, 256, random);
    let part = bytes[range.clone()].repeat(1 + random.below(8) as usize);
    bytes.splice(range.end..range.end, part);
    bytes
}

fn insert_bytes(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = at(&bytes, random);
    let count = random.below(16);
    let new: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
    bytes.splice(at..at, new);
    bytes
}

fn insert_word(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = at(&bytes, random);
    bytes.splice(at..at, word(random));
    bytes
}

fn word(random: &mut Random) -> Vec<u8> {
    match random.below(24) {
        0 => vec![b'['; 100_000],
        1 => "{\"a\":".repeat(20_000).into_bytes(),
        2 => vec![b'a'; 1 << 20],
        _ => pick(WORDS, random).as_bytes().to_vec(),
    }
}

/// Replaces a number in the text.
fn number(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| is_digit(*at) && (*at == 0 || !is_digit(at - 1)))
        .take(1 << 16)
        .collect();
    if starts.is_empty() {
        return insert_word(bytes, random);
    }
    let start = starts[random.below(starts.len() as u64) as usize];
    let end = (start..).find(|at| !is_digit(*at)).unwrap_or(start);
    let mut changed = bytes;
    changed.splice(start..end, pick(NUMBERS, random).bytes());
    changed
}

/// Replaces a value in a JSON text by one of another type, removes it, or duplicates it.
fn json(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes);
    // A line of JSON Lines, or the whole file.
    let lines: Vec<&str> = text.lines().collect();
    let (before, target, after) = match serde_json::from_str::<Value>(&text) {
        Ok(value) => (String::new(), value, String::new()),
        Err(_) if !lines.is_empty() => {
            let at = random.below(lines.len() as u64) as usize;
            let Ok(value) = serde_json::from_str(lines[at]) else {
                return insert_word(bytes, random);
            };
            let join = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect();
            (join(&lines[..at]), value, join(&lines[at + 1..]))
        }
        Err(_) => return insert_word(bytes, random),
    };
    let mut target = target;
    change(&mut target, random);
    format!("{before}{target}\n{after}").into_bytes()
}

fn change(value: &mut Value, random: &mut Random) {
    let deeper = random.below(8) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = random.below(fields.len() as u64) as usize;
            let key = fields.keys().nth(at).cloned().unwrap_or_default();
            match random.below(12) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let other = random.below(fields.len() as u64) as usize;
                    let value = fields.values().nth(other).cloned().unwrap_or_default();
                    fields.insert(key, value);
                }
                _ => change(&mut fields[&key], random),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.below(items.len() as u64) as usize;
            match random.below(12) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.truncate(at),
                _ => change(&mut items[at], random),
            }
        }
        _ => *value = other(random),
    }
}

fn other(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 1),
        2 => Value::Array(vec![other(random)]),
        3 => Value::Object(Map::from_iter([("a".to_owned(), Value::Null)])),
        4 => pick(WORDS, random).into(),
        5 => "a".repeat(random.below(1 << 16) as usize).into(),
        _ => {
            let number = pick(NUMBERS, random);
            serde_json::from_str(number).unwrap_or_else(|_| number.into())
        }
    }
}

pub(super) fn pick<'a>(from: &[&'a str], random: &mut Random) -> &'a str {
    from[random.below(from.len() as u64) as usize]
}
