//! Text as its tokens come, never half a character.
//!
//! What a token stands for depends on those before it: the first piece of a SentencePiece text
//! loses its space, and the bytes of a character may be spread over several tokens. So a stream
//! decodes new tokens together with those that were last given out, and gives out what is new
//! as far as it is whole characters.

use super::Tokenizer;
use crate::error::DataError;

/// The longest character in UTF-8, in bytes: so many tokens without a whole character hold none.
const LONGEST: usize = 4;
/// What a decoder puts in place of bytes that are no character.
const REPLACEMENT: char = '\u{fffd}';

/// The text of a sequence of tokens that is still growing.
#[derive(Debug, Clone)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens that were given out together, and then those that have not been, or not wholly.
    tokens: Vec<u32>,
    /// How many of the tokens are of the first kind.
    context: usize,
    /// As much of the tokens' text as has been given out.
    told: String,
    /// Tokens since something was given out.
    waiting: usize,
}

impl<'a> TextStream<'a> {
    /// The text that comes after that of these tokens.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Result<Self, DataError> {
        Ok(Self {
            told: tokenizer.decode(prompt)?,
            tokens: prompt.to_vec(),
            context: prompt.len(),
            waiting: 0,
            tokenizer,
        })
    }

    /// What the token adds to the text, which may be nothing yet.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary.
    pub fn push(&mut self, token: u32) -> Result<String, DataError> {
        self.tokens.push(token);
        self.waiting += 1;
        let all = self.tokenizer.decode(&self.tokens)?;
        let whole = all.trim_end_matches(REPLACEMENT);
        if whole.len() == all.len() || self.waiting >= LONGEST {
            return self.give_all(&all);
        }
        // The bytes at the end may be the beginning of a character.
        match whole.strip_prefix(self.told.as_str()) {
            Some(new) if !new.is_empty() => {
                self.told = whole.to_owned();
                self.waiting = 0;
                Ok(new.to_owned())
            }
            _ => Ok(String::new()),
        }
    }

    /// What is left: bytes that did not become a character.
    ///
    /// # Errors
    /// None that [`push`](Self::push) has not reported before.
    pub fn finish(mut self) -> Result<String, DataError> {
        let all = self.tokenizer.decode(&self.tokens)?;
        self.give_all(&all)
    }

    fn give_all(&mut self, all: &str) -> Result<String, DataError> {
        let new = match all.strip_prefix(self.told.as_str()) {
            Some(new) => new.to_owned(),
            // Tokens that are single bytes are decoded together, and one that fits nowhere makes
            // its neighbours unreadable: what has been given out stays.
            None => self.tokenizer.decode(&self.tokens[self.context..])?,
        };
        self.waiting = 0;
        // A token without a text of its own, such as a special one, is no context.
        if !new.is_empty() {
            self.tokens.drain(..self.context);
            self.context = self.tokens.len();
            self.told = self.tokenizer.decode(&self.tokens)?;
        }
        Ok(new)
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

    /// What a stream gives out for each token, and at the end.
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
    fn spaces_between_pieces_are_kept_and_the_first_is_not_there() {
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
        // A special token between has no text, and takes no space away.
        assert_eq!(
            pieces(&tokenizer, &[1, text[0]], &[2, text[0]]).concat(),
            " a"
        );
    }

    #[test]
    fn characters_come_whole_from_byte_tokens() {
        let tokenizer = sentence_piece();
        let text = "a日本🦀";
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokens.len(), 1 + 3 + 3 + 4);
        let found = pieces(&tokenizer, &[1], &tokens);
        assert_eq!(
            found,
            ["a", "", "", "日", "", "", "本", "", "", "", "🦀", ""]
        );
        // From within a character on: what the prompt began is completed by nothing.
        let byte = |b: u8| 3 + u32::from(b);
        let broken = [byte(0xff), byte(b'x'), byte(0xe6), byte(0x97)];
        let found = pieces(&tokenizer, &tokens[..4], &broken).concat();
        assert_eq!(found.chars().filter(|c| *c == REPLACEMENT).count(), 4);
        let cut = pieces(&tokenizer, &[1], &tokens[..3]).concat();
        assert_eq!(cut, "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_given_out_is_the_text() {
        let text = "fn naïve(日本: &str) { \"🦀🦀 ¿ß\" }\r\n\t // 𝒳𝒴𝒵";
        // Few merges: characters are cut wherever the training had them.
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

    #[test]
    fn the_template_says_what_starts_a_text() {
        assert_eq!(sentence_piece().start(), [1]);
        let trained = Tokenizer::train(std::iter::empty(), 257).unwrap();
        assert_eq!(trained.start(), Vec::<u32>::new());
    }
}
