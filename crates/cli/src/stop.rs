//! Stop strings in a text that comes in pieces.

/// Passes a text on up to the first stop string.
#[derive(Debug, Clone)]
pub(crate) struct Stops<'a> {
    stops: &'a [String],
    /// The end of the text so far, which may be the beginning of a stop string.
    held: String,
}

impl<'a> Stops<'a> {
    /// Empty stop strings are not looked for.
    pub(crate) fn new(stops: &'a [String]) -> Self {
        let held = String::new();
        Self { stops, held }
    }

    /// What may be shown now that more text has come, and whether that is all.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(end) = stops()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            self.held.truncate(end);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |at: &usize| stops().any(|stop| stop.starts_with(&self.held[*at..]));
        let ends = self.held.char_indices().map(|(at, _)| at);
        let safe = { ends }.find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(safe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back in vain.
    pub(crate) fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).into()).collect();
        let mut filter = Stops::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            shown.push(text);
            if stopped {
                return (shown, filter.finish(), true);
            }
        }
        (shown, filter.finish(), false)
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
}
