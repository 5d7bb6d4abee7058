//! Baselines of a text for the loss of a model.
//!
//! A model's loss is compared across tokenizers in bits per byte,
//!
//! ```text
//! bits per byte = (nats per token / ln 2) * tokens / bytes of text.
//! ```

use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Converts a loss in nats per token (a mean) to bits per byte, given the numbers of tokens and of bytes of
/// text. NaN if there are no bytes.
pub fn bits_per_byte(nats_per_token: f64, tokens: u64, text_bytes: f64) -> f64 {
    nats_per_token / std::f64::consts::LN_2 * tokens as f64 / text_bytes
}

/// The unigram entropy of the tokens, in nats per token: the mean loss of the best model that ignores
/// context. 0 if there are no tokens.
///
/// `counts` is the number of occurrences of each token, as in
/// [`TokenFile::counts`](crate::TokenFile::counts).
pub fn unigram_entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| count as f64 / total)
        .map(|p| -p * p.ln())
        .sum()
}

/// The unigram entropy of the tokens in bits per byte of text.
pub fn unigram_bits_per_byte(counts: &[u64], text_bytes: u64) -> f64 {
    bits_per_byte(
        unigram_entropy(counts),
        counts.iter().sum(),
        text_bytes as f64,
    )
}

/// The size of the text under `gzip -9`, in bits per byte; 0 for an empty text.
///
/// # Errors
/// If the text cannot be read.
pub fn gzip_bits_per_byte(mut text: impl Read) -> std::io::Result<f64> {
    struct Count(u64);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut encoder = GzEncoder::new(Count(0), Compression::best());
    let bytes = std::io::copy(&mut text, &mut encoder)?;
    let packed = encoder.finish()?.0;
    Ok(if bytes == 0 {
        0.0
    } else {
        8.0 * packed as f64 / bytes as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_equal_values_computed_by_hand() {
        // Four tokens equally often: ln 4 nats, 2 bits; each stands for 2 bytes: 1 bit per byte.
        let counts = [5, 5, 0, 5, 5];
        assert!((unigram_entropy(&counts) - 4_f64.ln()).abs() < 1e-12);
        assert!((unigram_bits_per_byte(&counts, 40) - 1.0).abs() < 1e-12);
        assert_eq!(unigram_entropy(&[0, 9]), 0.0);
        assert_eq!(unigram_entropy(&[]), 0.0);
    }

    #[test]
    fn gzip_of_zeros_and_of_an_empty_text() {
        assert_eq!(gzip_bits_per_byte(&b""[..]).unwrap(), 0.0);
        // Deflate's limit is 258 bytes in two bits, 1032 to 1.
        let zeros = gzip_bits_per_byte(&[0; 1 << 20][..]).unwrap();
        assert!(zeros > 8.0 / 1032.0 && zeros < 8.0 / 900.0, "{zeros}");
    }
}
