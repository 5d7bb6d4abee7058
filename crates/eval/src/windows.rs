//! Splits a long text into windows that fit the model.
//!
//! Every token is predicted once. The first window starts with a prefix token and predicts as many tokens as
//! fit; each later window predicts the next ones and includes as much earlier context as fits, so that even
//! its first prediction has at least one token of context (`get_rolling_token_windows` with one token of
//! context, `make_disjoint_window`, in `lm_eval.utils`).

/// A window: the model receives `inputs`, and its last `predicted.len()` outputs are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The input tokens, at most the model's context length.
    pub inputs: Vec<u32>,
    /// The targets of the last outputs.
    pub predicted: Vec<u32>,
}

/// The windows of a text; none for an empty text.
///
/// # Panics
/// If `max_length` is 0.
pub fn rolling(
    tokens: &[u32],
    prefix: u32,
    max_length: usize,
) -> impl Iterator<Item = Window> + '_ {
    assert!(max_length > 0, "max_length must be at least 1");
    let first = tokens.len().min(max_length);
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == tokens.len() {
            return None;
        }
        let from = done;
        done = match from {
            0 => first,
            _ => (from + max_length).min(tokens.len()),
        };
        let inputs = match from {
            0 => [&[prefix], &tokens[..first - 1]].concat(),
            _ => tokens[done - max_length - 1..done - 1].to_vec(),
        };
        Some(Window {
            inputs,
            predicted: tokens[from..done].to_vec(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[x for x in map(make_disjoint_window, get_rolling_token_windows(range(1, 1 + n), 0, m, 1))]`
    /// of the harness, its context and continuation joined and the last token taken off.
    #[test]
    fn windows_equal_the_harness() {
        type Expected = (&'static [u32], &'static [u32]);
        let cases: &[(u32, usize, &[Expected])] = &[
            (0, 4, &[]),
            (3, 4, &[(&[0, 1, 2], &[1, 2, 3])]),
            (4, 4, &[(&[0, 1, 2, 3], &[1, 2, 3, 4])]),
            (
                10,
                4,
                &[
                    (&[0, 1, 2, 3], &[1, 2, 3, 4]),
                    (&[4, 5, 6, 7], &[5, 6, 7, 8]),
                    (&[6, 7, 8, 9], &[9, 10]),
                ],
            ),
            (2, 1, &[(&[0], &[1]), (&[1], &[2])]),
        ];
        for (n, max_length, expected) in cases {
            let tokens: Vec<u32> = (1..=*n).collect();
            let found = rolling(&tokens, 0, *max_length);
            let found: Vec<Expected2> = found
                .map(|window| (window.inputs, window.predicted))
                .collect();
            let expected: Vec<Expected2> = expected
                .iter()
                .map(|(inputs, predicted)| (inputs.to_vec(), predicted.to_vec()))
                .collect();
            assert_eq!(found, expected, "{n} tokens, context {max_length}");
        }
    }

    type Expected2 = (Vec<u32>, Vec<u32>);
}
