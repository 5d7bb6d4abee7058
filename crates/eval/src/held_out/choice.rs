//! Continuations of a passage, the correct one among three from other files, as in HellaSwag.
//!
//! The correct lines are at each of the four positions, and are the shortest, second, third and longest of
//! the four, with equal frequency and independently. All four have the same indentation, come from files with
//! the same extension, and differ in length by at most a quarter. So neither position nor length nor the
//! appearance of the first line reveals the answer.

use std::collections::{BTreeMap, HashSet};

use iiet_data::HeldOutFile;
use serde_json::{Map, Value};

use super::{ITEMS, line_starts, row};
use crate::error::EvalError;
use crate::python_random::PythonRandom;

/// Length of the passage in bytes.
const CONTEXT: std::ops::RangeInclusive<usize> = 384..=768;
/// Length of the continuations in bytes.
const ENDING: std::ops::RangeInclusive<usize> = 80..=240;
/// Distance in lines between the segments taken from a file.
const STRIDE: usize = 7;

/// A segment of lines, and the passage before it.
struct Segment<'a> {
    file: &'a HeldOutFile,
    context: &'a str,
    ending: &'a str,
}

/// Properties that the four choices of an item share: the file's extension and the indentation.
type Look<'a> = (&'a str, &'a str);

/// Items drawn evenly from all of the held-out text.
///
/// # Errors
/// None; the signature is that of [`Generate`](super::Generate).
pub fn choice(files: &[HeldOutFile]) -> Result<Vec<Map<String, Value>>, EvalError> {
    let segments: Vec<Segment<'_>> = files.iter().flat_map(of_file).collect();
    let mut alike: BTreeMap<Look<'_>, Vec<usize>> = BTreeMap::new();
    for (at, segment) in segments.iter().enumerate() {
        alike.entry(look(segment)).or_default().push(at);
    }
    for of_look in alike.values_mut() {
        of_look.sort_by_key(|at| (segments[*at].ending.len(), *at));
    }
    let mut random = PythonRandom::new(3);
    let order = random.sample(segments.len(), segments.len());
    let mut used: HashSet<usize> = HashSet::new();
    let mut rows = Vec::new();
    for right in order.unwrap_or_default() {
        if rows.len() == ITEMS {
            break;
        }
        if used.contains(&right) {
            continue;
        }
        let (place, shorter) = (rows.len() % 4, rows.len() / 4 % 4);
        let pool = &alike[&look(&segments[right])];
        let Some(mut others) = others(&segments, pool, right, shorter, &used, &mut random) else {
            continue;
        };
        used.insert(right);
        used.extend(&others);
        // From here on, the others are not in order of length.
        let shuffled = random.sample(3, 3).unwrap_or_default();
        others = shuffled.into_iter().map(|at| others[at]).collect();
        others.insert(place, right);
        let choices: Vec<&str> = others.iter().map(|at| segments[*at].ending).collect();
        rows.push(row([
            ("context", segments[right].context.into()),
            ("choices", choices.into()),
            ("answer", place.into()),
            ("file", segments[right].file.place.as_str().into()),
        ]));
    }
    Ok(rows)
}

/// Three segments from different other files as wrong choices, `shorter` of them shorter than the correct
/// one.
fn others(
    segments: &[Segment<'_>],
    pool: &[usize],
    right: usize,
    shorter: usize,
    used: &HashSet<usize>,
    random: &mut PythonRandom,
) -> Option<Vec<usize>> {
    let length = segments[right].ending.len();
    let up_to = |bound: usize| pool.partition_point(|at| segments[*at].ending.len() < bound);
    let ranges = [
        (up_to((length * 4).div_ceil(5)), up_to(length), shorter),
        (up_to(length + 1), up_to(length * 5 / 4), 3 - shorter),
    ];
    let mut found = Vec::with_capacity(3);
    let mut places = HashSet::from([segments[right].file.place.as_str()]);
    for (from, to, wanted) in ranges {
        let before = found.len();
        // A few attempts each: if there are few candidates, another item is found faster.
        for _ in 0..16 {
            if found.len() - before == wanted || from == to {
                break;
            }
            let at = pool[from + random.choice(to - from)];
            if !used.contains(&at) && places.insert(segments[at].file.place.as_str()) {
                found.push(at);
            }
        }
        if found.len() - before < wanted {
            return None;
        }
    }
    Some(found)
}

fn look<'a>(segment: &Segment<'a>) -> Look<'a> {
    let kind = segment.file.place.rsplit('.').next().unwrap_or_default();
    let text = segment.ending;
    (kind, &text[..text.len() - text.trim_start().len()])
}

fn of_file(file: &HeldOutFile) -> Vec<Segment<'_>> {
    let text = file.text.as_str();
    let starts = line_starts(text);
    let mut segments = Vec::new();
    for (line, &start) in starts.iter().enumerate().step_by(STRIDE) {
        let from = starts.partition_point(|from| from + CONTEXT.end() < start);
        let end = starts[line..]
            .iter()
            .find(|end| **end - start > *ENDING.start());
        let (Some(&from), Some(&end)) = (starts.get(from), end) else {
            continue;
        };
        let ending = &text[start..end];
        let whole = ending.trim_end();
        // Both code points and bytes must order the lengths in the same way.
        let plain = ending.is_ascii() && !ending.contains('\r');
        let lines = whole.lines().count() >= 2 && !ending.starts_with('\n');
        if plain
            && lines
            && ENDING.contains(&whole.len())
            && CONTEXT.contains(&(start - from))
            && !text[from..start].contains(whole)
        {
            segments.push(Segment {
                file,
                context: &text[from..start],
                ending: whole,
            });
        }
    }
    segments
}
