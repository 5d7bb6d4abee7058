//! The lines that follow a passage, among three runs of lines from other files: HellaSwag's idea.
//!
//! The right lines stand at each of the four places, and are the shortest, second, third and longest
//! of the four, equally often and independently. All four have the same indentation, come from
//! files of one kind, and differ in length by a quarter at most. So neither place nor length nor the
//! look of the first line gives them away.

use std::collections::{BTreeMap, HashSet};

use iiet_data::HeldOutFile;
use serde_json::{Map, Value};

use super::{ITEMS, line_starts, row};
use crate::error::EvalError;
use crate::python_random::PythonRandom;

/// Bytes of the passage.
const CONTEXT: std::ops::RangeInclusive<usize> = 384..=768;
/// Bytes of the lines that follow.
const ENDING: std::ops::RangeInclusive<usize> = 80..=240;
/// Lines are taken from a file this many lines apart.
const STRIDE: usize = 7;

/// Lines, and the passage before them.
struct Segment<'a> {
    file: &'a HeldOutFile,
    context: &'a str,
    ending: &'a str,
}

/// What all four choices of an item share: the file's ending and the indentation.
type Look<'a> = (&'a str, &'a str);

/// Items drawn from all of the held-out text.
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
        // The others are in order of length no more.
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

/// Three segments to be told from the right one, so many of them shorter than it; from other files,
/// no two of one.
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
        // A few tries each: where there are few, another item is sooner found.
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
        // Code points and bytes are to agree on which is longer.
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
