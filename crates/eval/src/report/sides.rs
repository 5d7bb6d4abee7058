//! What a language model has once, and an encoder-decoder for each side.

use serde::Serialize;

/// Something of a model's only stack of layers, or of both. Serialised without a key for the one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Sides<T> {
    /// Of a language model.
    One(T),
    /// Of an encoder-decoder.
    Two {
        /// Of the encoder, or for each token of a source.
        encoder: T,
        /// Of the decoder, or for each token of a target.
        decoder: T,
    },
}

impl<T> Sides<T> {
    /// One or two, the encoder first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (first, second) = match self {
            Self::One(one) => (one, None),
            Self::Two { encoder, decoder } => (encoder, Some(decoder)),
        };
        [first].into_iter().chain(second)
    }

    /// The same of another model of this kind, side by side.
    ///
    /// # Panics
    /// If the other is of another kind.
    pub(super) fn zip<'a, U>(&'a self, other: &'a Sides<U>) -> Sides<(&'a T, &'a U)> {
        match (self, other) {
            (Self::One(a), Sides::One(b)) => Sides::One((a, b)),
            (
                Self::Two { encoder, decoder },
                Sides::Two {
                    encoder: e,
                    decoder: d,
                },
            ) => Sides::Two {
                encoder: (encoder, e),
                decoder: (decoder, d),
            },
            _ => panic!("invariant: models of one kind are compared"),
        }
    }

    /// A function of each.
    pub(super) fn map<U>(self, of: impl Fn(T) -> U) -> Sides<U> {
        match self {
            Self::One(one) => Sides::One(of(one)),
            Self::Two { encoder, decoder } => Sides::Two {
                encoder: of(encoder),
                decoder: of(decoder),
            },
        }
    }
}
