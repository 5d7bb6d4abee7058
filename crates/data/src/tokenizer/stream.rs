//! Incremental decoding of tokens to text, in whole characters.
//!
//! A token's text depends on earlier tokens: the first piece of a SentencePiece text loses its space, and the
//! bytes of a character may be spread over several tokens. So a stream decodes new tokens together with those
//! that were output last, and outputs what is new as far as it consists of whole characters.
//!
//! Decoders output U+FFFD for invalid bytes, and for those of an incomplete character: one for all of these,
//! or one for each. An incomplete character has at most three bytes, so up to three U+FFFD at the end are
//! held back until more tokens arrive, and everything before them is final. (The `tokenizers` crate's own
//! `DecodeStream` holds back all text that ends in U+FFFD, so invalid bytes at the end of a text are never
//! output.)

use super::Tokenizer;
use crate::error::DataError;

/// The longest character in UTF-8, in bytes.
const LONGEST: usize = 4;
/// The decoders' replacement for invalid bytes.
const REPLACEMENT: char = '\u{fffd}';
/// With more tokens than this after the context, those that are completely output become the context, so that
/// a text of invalid bytes is not decoded from its start for every token.
const LONG: usize = 32;

/// The text of a growing sequence of tokens.
///
/// The concatenated pieces equal the result of [`Tokenizer::decode`] for all tokens, except if a decoder
/// changes a complete character because of an invalid byte after it, as `ByteFallback` does: text that was
/// output is not changed.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// Context tokens, whose text was output together, followed by tokens that are not or only partly output.
    tokens: Vec<u32>,
    /// The number of context tokens.
    context: usize,
    /// The part of the tokens' text that has been output.
    told: String,
}

impl TextStream {
    /// A stream for the text that follows these tokens.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary.
    pub fn new(tokenizer: &Tokenizer, prompt: &[u32]) -> Result<Self, DataError> {
        Ok(Self {
            told: tokenizer.decode(prompt)?,
            tokens: prompt.to_vec(),
            context: prompt.len(),
            tokenizer: tokenizer.clone(),
        })
    }

    /// Adds a token and returns the new text, which may be empty.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary.
    pub fn push(&mut self, token: u32) -> Result<String, DataError> {
        self.tokens.push(token);
        let all = self.tokenizer.decode(&self.tokens)?;
        let Some(new) = all.strip_prefix(self.told.as_str()) else {
            return self.push_apart();
        };
        let held_back = new.chars().rev().take(LONGEST - 1);
        let held_back = held_back.take_while(|c| *c == REPLACEMENT).count();
        let whole = &new[..new.len() - held_back * REPLACEMENT.len_utf8()];
        let whole = whole.to_owned();
        self.told.push_str(&whole);
        if held_back == 0 {
            // A token without text, such as a special one, is not a context.
            if !whole.is_empty() {
                self.begin_context(self.tokens.len())?;
            }
        } else if self.tokens.len() - self.context > LONG {
            self.shorten(&all)?;
        }
        Ok(whole)
    }

    /// The text of the new tokens alone. Tokens that are single bytes are decoded together, and an invalid
    /// one makes its neighbours invalid, at least until its character is complete.
    fn push_apart(&mut self) -> Result<String, DataError> {
        let new = self.tokenizer.decode(&self.tokens[self.context..])?;
        if new.ends_with(REPLACEMENT) && self.tokens.len() - self.context < LONGEST {
            return Ok(String::new());
        }
        self.begin_context(self.tokens.len())?;
        Ok(new)
    }

    /// The remaining text: bytes that did not become a character.
    ///
    /// # Errors
    /// Only errors that [`push`](Self::push) has reported before.
    pub fn finish(self) -> Result<String, DataError> {
        let all = self.tokenizer.decode(&self.tokens)?;
        match all.strip_prefix(self.told.as_str()) {
            Some(new) => Ok(new.to_owned()),
            None => self.tokenizer.decode(&self.tokens[self.context..]),
        }
    }

    /// Makes the tokens up to `end` the context of those that follow.
    fn begin_context(&mut self, end: usize) -> Result<(), DataError> {
        self.tokens.drain(..self.context);
        self.context = end - self.context;
        self.told = self.tokenizer.decode(&self.tokens[..self.context])?;
        Ok(())
    }

    /// Starts a new context before the tokens whose text is held back, if these can be determined.
    fn shorten(&mut self, all: &str) -> Result<(), DataError> {
        let held_back = &all[self.told.len()..];
        for count in 1..LONGEST {
            let end = self.tokens.len() - count;
            let [before, after] = [&self.tokens[..end], &self.tokens[end..]];
            if self.tokenizer.decode(before)? == self.told
                && self.tokenizer.decode(after)? == held_back
            {
                return self.begin_context(end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of LLaMA's kind: spaces are part of the pieces, unknown characters are bytes.
    fn sentence_piece() -> Tokenizer {
        let mut vocab = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
        vocab.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        vocab.extend(["▁", "a", "b", "▁a", "▁ab", "."].map(String::from));
        let ids: serde_json::Map<String, serde_json::Value> = vocab
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .collect();
        let special = |id: usize| {
            serde_json::json!({"id": id, "content": vocab[id], "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        };
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0), special(1), special(2)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": ids,
                "merges": [["▁", "a"], ["▁a", "b"]]}
        });
        Tokenizer::from_json(json.to_string()).unwrap()
    }

    /// The output of a stream for each token, and at the end.
    fn pieces(tokenizer: &Tokenizer, prompt: &[u32], tokens: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(tokenizer, prompt).unwrap();
        let mut pieces: Vec<String> = tokens
            .iter()
            .map(|token| stream.push(*token).unwrap())
            .collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn spaces_between_pieces_are_kept_except_the_first() {
        let tokenizer = sentence_piece();
        let id = |token: &str| tokenizer.id(token).unwrap();
        let text = [id("▁a"), id("b"), id("▁ab"), id("▁"), id("▁a"), id(".")];
        assert_eq!(
            pieces(&tokenizer, &[1], &text),
            ["a", "b", " ab", " ", " a", ".", ""]
        );
        assert_eq!(pieces(&tokenizer, &[], &text).concat(), "ab ab  a.");
        let after = pieces(&tokenizer, &[1, id("▁a")], &text[2..]);
        assert_eq!(after.concat(), " ab  a.");
        // A special token in between has no text and removes no space.
        assert_eq!(
            pieces(&tokenizer, &[1, text[0]], &[2, text[0]]).concat(),
            " a"
        );
    }

    #[test]
    fn byte_tokens_are_output_as_whole_characters() {
        let tokenizer = sentence_piece();
        let text = "a日本🦀";
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokens.len(), 1 + 3 + 3 + 4);
        let found = pieces(&tokenizer, &[1], &tokens);
        assert_eq!(
            found,
            ["a", "", "", "日", "", "", "本", "", "", "", "🦀", ""]
        );
        // Starting within a character, which is then never completed.
        let byte = |b: u8| 3 + u32::from(b);
        let broken = [byte(0xff), byte(b'x'), byte(0xe6), byte(0x97)];
        let found = pieces(&tokenizer, &tokens[..4], &broken).concat();
        assert_eq!(found.chars().filter(|c| *c == REPLACEMENT).count(), 4);
        let cut = pieces(&tokenizer, &[1], &tokens[..3]).concat();
        assert_eq!(cut, "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_output_equals_the_text() {
        let text = "fn naïve(日本: &str) { \"🦀🦀 ¿ß\" }\r\n\t // 𝒳𝒴𝒵";
        // Few merges, so that characters are split between tokens.
        let trained = Tokenizer::train(std::iter::repeat_n(text.to_owned(), 3), 275).unwrap();
        for tokenizer in [trained, sentence_piece()] {
            let tokens = tokenizer.encode(text).unwrap();
            let expected = tokenizer.decode(&tokens).unwrap();
            for cut in 0..tokens.len() {
                let before = tokenizer.decode(&tokens[..cut]).unwrap();
                if before.contains(REPLACEMENT) {
                    continue;
                }
                let found = pieces(&tokenizer, &tokens[..cut], &tokens[cut..]);
                assert!(
                    found.iter().all(|piece| !piece.contains(REPLACEMENT)),
                    "{found:?}"
                );
                assert_eq!(before + &found.concat(), expected);
            }
        }
    }

    /// A byte-level tokenizer whose tokens are single bytes.
    fn bytes_only() -> Tokenizer {
        Tokenizer::train(std::iter::empty(), 257).unwrap()
    }

    #[test]
    fn characters_after_invalid_bytes_are_output_whole() {
        let tokenizer = bytes_only();
        // The token of a byte, by its text or else by its visible character.
        let byte = |byte: u8| {
            let visible = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
                0x80..=0xa0 => char::from_u32(0x100 + 33 + u32::from(byte - 0x7f)).unwrap(),
                _ => panic!("not needed here"),
            };
            tokenizer.id(&visible.to_string()).unwrap()
        };
        for bytes in [
            &b"\xff\xff\xff\xc3\xa9"[..],
            b"\xff\xc3\xa9",
            b"\xe6\x97\xe6\x97\xa5x",
            b"\xf0\x9f\xa6\xff\xf0\x9f\xa6\x80",
            b"a\xe6\x97",
        ] {
            let tokens: Vec<u32> = bytes.iter().map(|b| byte(*b)).collect();
            let found = pieces(&tokenizer, &[], &tokens).concat();
            assert_eq!(found, String::from_utf8_lossy(bytes));
        }
        let long = [vec![0xff; 200], "日".as_bytes().to_vec()].concat();
        let tokens: Vec<u32> = long.iter().map(|b| byte(*b)).collect();
        let found = pieces(&tokenizer, &tokens[..1], &tokens[1..]).concat();
        assert_eq!(found, String::from_utf8_lossy(&long[1..]));
        let mut stream = TextStream::new(&tokenizer, &[]).unwrap();
        for token in &tokens[..200] {
            stream.push(*token).unwrap();
        }
        assert!(stream.tokens.len() <= 2 * LONG, "{}", stream.tokens.len());
    }

    proptest::proptest! {
        #[test]
        fn the_pieces_equal_the_text_for_any_bytes(
            bytes in proptest::collection::vec(0_usize..256, 0..40), start in 0_usize..5,
        ) {
            static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(bytes_only);
            // Byte tokens in any order; 0 is the document-end token.
            let tokens: Vec<u32> = bytes.iter().map(|b| 1 + *b as u32).collect();
            let start = start.min(tokens.len());
            let before = TOKENIZER.decode(&tokens[..start]).unwrap();
            proptest::prop_assume!(!before.ends_with(REPLACEMENT));
            let found = pieces(&TOKENIZER, &tokens[..start], &tokens[start..]).concat();
            proptest::prop_assert_eq!(before + &found, TOKENIZER.decode(&tokens).unwrap());
        }
    }

    #[test]
    fn the_template_defines_the_tokens_that_start_a_text() {
        assert_eq!(sentence_piece().start(), [1]);
        let trained = Tokenizer::train(std::iter::empty(), 257).unwrap();
        assert_eq!(trained.start(), Vec::<u32>::new());
    }
}
