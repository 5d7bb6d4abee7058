//! Stop texts in streamed text.
//!
//! The text ends before the stop text that *begins* first, not the one that is complete first: with "mum" and
//! "umumum" as stop texts, the second ends "umumum" at its start, though the first is complete two characters
//! earlier. So after a stop text is found, the text is held back while an earlier one may still be completed.

/// Passes text through up to the first stop text.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    stops: Vec<String>,
    /// The end of the text so far, if it may be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl Stops {
    /// Searches for these texts; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        Self {
            stops: stops.cloned().collect(),
            ..Self::default()
        }
    }

    /// Adds text, and returns what can be output now.
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

    /// The text that was held back, at the end of the stream.
    pub fn finish(&mut self) -> String {
        let mut held = std::mem::take(&mut self.held);
        if let Some(found) = self.stops.iter().filter_map(|stop| held.find(stop)).min() {
            self.stopped = true;
            held.truncate(found);
        }
        held
    }

    /// The position at which the first complete stop text begins.
    fn found(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        found.min()
    }

    /// The position of the first stop text that a later piece may complete.
    fn pending(&self) -> Option<usize> {
        let longest = self.stops.iter().map(String::len).max()?;
        // A proper prefix is shorter than its stop text.
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

    /// The output pieces, the output at the end, and whether a stop text was found.
    fn pass(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).into()).collect();
        let mut filter = Stops::new(&stops);
        let shown = pieces.iter().map(|piece| filter.push(piece)).collect();
        let rest = filter.finish();
        (shown, rest, filter.stopped())
    }

    #[test]
    fn the_first_stop_text_is_found_across_pieces() {
        let expected = (vec!["a".into(), "".into(), "".into()], "".into(), true);
        assert_eq!(pass(&["\n\n"], &["a", "\n", "\nb"]), expected);
        let expected = (vec!["x".to_owned()], "".into(), true);
        assert_eq!(pass(&["bc", "ab"], &["xabc"]), expected);
    }

    #[test]
    fn an_incomplete_stop_text_is_output_at_the_end() {
        let (shown, rest, stopped) = pass(&["END"], &["E", "N", "x", "EN"]);
        assert_eq!(shown, ["", "", "ENx", ""]);
        assert_eq!((rest.as_str(), stopped), ("EN", false));
        let (shown, rest, _) = pass(&["日本"], &["日", "日", "x"]);
        assert_eq!((shown.concat().as_str(), rest.as_str()), ("日日x", ""));
    }

    #[test]
    fn without_stop_texts_no_text_is_held_back() {
        assert_eq!(
            pass(&[""], &["a", "b"]),
            (vec!["a".into(), "b".into()], "".into(), false)
        );
    }

    #[test]
    fn of_overlapping_stop_texts_the_first_to_begin_ends_the_text() {
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um", "um", "um"]);
        assert_eq!((shown.concat() + &rest, stopped), (String::new(), true));
        // The longer one is not completed, so the shorter one ends the text.
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um", "x"]);
        assert_eq!((shown.concat() + &rest, stopped), ("u".into(), true));
        let (shown, rest, stopped) = pass(&["mum", "umumum"], &["um", "um"]);
        assert_eq!((shown.concat() + &rest, stopped), ("u".into(), true));
    }

    /// Every text of up to eight letters, split into single characters, with every pair of stop texts from a
    /// set that overlap in all ways, against a search in the whole text.
    #[test]
    fn results_do_not_depend_on_the_pieces() {
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
