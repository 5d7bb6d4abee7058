//! Stop texts in a text that comes in pieces.
//!
//! The text ends before the stop text that *begins* first, whichever is complete first: of "mum" and
//! "umumum" the second ends "umumum" at its start, though the first is complete two characters
//! earlier. So a stop text that was found is held back while one that began before it may still be
//! completed.

/// Passes a text on up to the first stop text.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    stops: Vec<String>,
    /// The end of the text so far, which may be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl Stops {
    /// Looks for these texts; empty ones are not looked for.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        Self {
            stops: stops.cloned().collect(),
            ..Self::default()
        }
    }

    /// What may be shown now that more text has come.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let pending = self.pending();
        let safe = match self.found() {
            Some(found) if pending.is_none_or(|pending| found <= pending) => {
                self.stopped = true;
                let before = self.held[..found].to_owned();
                self.held.clear();
                return before;
            }
            _ => pending.unwrap_or(self.held.len()),
        };
        let rest = self.held.split_off(safe);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop text has ended the text.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back in vain, now that no more text comes.
    pub fn finish(&mut self) -> String {
        let mut held = std::mem::take(&mut self.held);
        if let Some(found) = self.stops.iter().filter_map(|stop| held.find(stop)).min() {
            self.stopped = true;
            held.truncate(found);
        }
        held
    }

    /// Where the first of the complete stop texts begins.
    fn found(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        found.min()
    }

    /// Where the first stop text begins that the next piece may complete.
    fn pending(&self) -> Option<usize> {
        let longest = self.stops.iter().map(String::len).max()?;
        // A beginning is shorter than its stop text.
        let from = self.held.len().saturating_sub(longest - 1);
        let places = self.held.char_indices().map(|(at, _)| at);
        places.filter(|at| *at >= from).find(|at| {
            let end = &self.held[*at..];
            let begins = |stop: &String| stop.len() > end.len() && stop.starts_with(end);
            self.stops.iter().any(begins)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces shown, what is shown at the end, and whether a stop text came.
    fn pass(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).into()).collect();
        let mut filter = Stops::new(&stops);
        let shown = pieces.iter().map(|piece| filter.push(piece)).collect();
        let rest = filter.finish();
        (shown, rest, filter.stopped())
    }

    #[test]
    fn the_first_stop_ends_the_text_wherever_it_is_cut() {
        let expected = (vec!["a".into(), "".into(), "".into()], "".into(), true);
        assert_eq!(pass(&["\n\n"], &["a", "\n", "\nb"]), expected);
        let expected = (vec!["x".to_owned()], "".into(), true);
        assert_eq!(pass(&["bc", "ab"], &["xabc"]), expected);
    }

    #[test]
    fn what_only_begins_like_a_stop_is_shown_in_the_end() {
        let (shown, rest, stopped) = pass(&["END"], &["E", "N", "x", "EN"]);
        assert_eq!(shown, ["", "", "ENx", ""]);
        assert_eq!((rest.as_str(), stopped), ("EN", false));
        let (shown, rest, _) = pass(&["日本"], &["日", "日", "x"]);
        assert_eq!((shown.concat().as_str(), rest.as_str()), ("日日x", ""));
    }

    #[test]
    fn no_stops_hold_nothing_back() {
        assert_eq!(
            pass(&[""], &["a", "b"]),
            (vec!["a".into(), "b".into()], "".into(), false)
        );
    }

    #[test]
    fn of_overlapping_stops_the_one_that_begins_first_ends_the_text() {
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um", "um", "um"]);
        assert_eq!((shown.concat() + &rest, stopped), (String::new(), true));
        // The longer one is not completed: the shorter one counts.
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um", "x"]);
        assert_eq!((shown.concat() + &rest, stopped), ("u".into(), true));
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um"]);
        assert_eq!((shown.concat() + &rest, stopped), ("u".into(), true));
    }

    /// Every text of up to eight letters, cut into single characters, with every pair of stop texts of
    /// a set that overlap in all ways, against a search in the whole text.
    #[test]
    fn cutting_changes_nothing() {
        let set = ["a", "ab", "ba", "aba", "bab", "abab", "babbab", "bb"];
        for first in set {
            for second in set {
                let stops = [first.to_owned(), second.to_owned()];
                for bits in 0..1u32 << 8 {
                    let letter = |i: u32| if (bits >> i) & 1 == 1 { "a" } else { "b" };
                    let pieces: Vec<&str> = (0..8).map(letter).collect();
                    let text = pieces.concat();
                    let end = stops.iter().filter_map(|stop| text.find(stop)).min();
                    let (shown, rest, stopped) = pass(&[first, second], &pieces);
                    let found = shown.concat() + &rest;
                    assert_eq!(found, text[..end.unwrap_or(8)], "{text} {stops:?}");
                    assert_eq!(stopped, end.is_some(), "{text} {stops:?}");
                }
            }
        }
    }
}
