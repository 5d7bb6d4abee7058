//! A long text as windows that fit the model.
//!
//! Every token is predicted once. The first window begins with a prefix token and predicts as many
//! tokens as fit; each later one ends where it must and reaches back as far as fits, so that even
//! its first prediction sees one token at least (`get_rolling_token_windows` with one token of
//! context, `make_disjoint_window`, in `lm_eval.utils`).

/// A window: the model is given `inputs` and its last `predicted` outputs are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// At most as many tokens as the model's context.
    pub inputs: Vec<u32>,
    /// The tokens that the last outputs are to predict.
    pub predicted: Vec<u32>,
}

/// The windows of a text, none of an empty one.
///
/// # Panics
/// If `max_length` is 0.
pub fn rolling(tokens: &[u32], prefix: u32, max_length: usize) -> Vec<Window> {
    assert!(max_length > 0, "a model without context");
    let mut windows = Vec::new();
    let first = tokens.len().min(max_length);
    if first > 0 {
        let mut inputs = vec![prefix];
        inputs.extend(&tokens[..first - 1]);
        windows.push(Window {
            inputs,
            predicted: tokens[..first].to_vec(),
        });
    }
    let mut done = first;
    while done < tokens.len() {
        let end = (done + max_length).min(tokens.len());
        windows.push(Window {
            inputs: tokens[end - max_length - 1..end - 1].to_vec(),
            predicted: tokens[done..end].to_vec(),
        });
        done = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[x for x in map(make_disjoint_window, get_rolling_token_windows(range(1, 1 + n), 0, m, 1))]`
    /// of the harness, its context and continuation joined and the last token taken off.
    #[test]
    fn windows_are_the_harness_ones() {
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
                .into_iter()
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
