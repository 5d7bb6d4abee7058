//! The order of the rows of the query and key projections.
//!
//! Hugging Face's rotary embedding turns coordinate i of a head together with i + d/2 (half-split), llama.cpp's
//! turns 2i with 2i + 1 (interleaved). With the rows of `q_proj` and `k_proj` in another order within each head,
//! both compute the same attention: row 2i + j of a head in GGUF is row j d/2 + i in `model.safetensors`.
//! Source: `LlamaModel.permute` of llama.cpp's converter.

/// Rows in llama.cpp's order from rows in Hugging Face's. A row has `width` elements.
///
/// # Panics
///
/// If the rows cannot be divided into heads of an even number of rows.
pub fn interleaved_rows<T: Copy>(values: &[T], heads: usize, width: usize) -> Vec<T> {
    reordered(values, heads, width, |row, half| row % 2 * half + row / 2)
}

/// Rows in Hugging Face's order from rows in llama.cpp's. A row has `width` elements.
///
/// # Panics
///
/// The same as for [`interleaved_rows`].
pub fn half_split_rows<T: Copy>(values: &[T], heads: usize, width: usize) -> Vec<T> {
    reordered(values, heads, width, |row, half| {
        row % half * 2 + row / half
    })
}

/// `from` gives the row of a head that comes to a place, from the place and half the number of rows.
fn reordered<T: Copy>(
    values: &[T],
    heads: usize,
    width: usize,
    from: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let size = values.len() / heads;
    assert!(
        size * heads == values.len() && size.is_multiple_of(2 * width) && size > 0,
        "{} elements; {heads} heads of an even number of rows of {width}",
        values.len()
    );
    let rows = size / width;
    let mut all = Vec::with_capacity(values.len());
    for head in values.chunks_exact(size) {
        for row in 0..rows {
            let start = from(row, rows / 2) * width;
            all.extend_from_slice(&head[start..start + width]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_each_head_are_interleaved() {
        // Two heads of four rows with two elements.
        let rows = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7];
        let interleaved = [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7];
        assert_eq!(interleaved_rows(&rows, 2, 2), interleaved);
        assert_eq!(half_split_rows(&interleaved, 2, 2), rows);
        let one_head: Vec<usize> = (0..6).collect();
        assert_eq!(interleaved_rows(&one_head, 1, 1), [0, 3, 1, 4, 2, 5]);
        assert_eq!(
            half_split_rows(&[0, 3, 1, 4, 2, 5], 1, 1),
            [0, 1, 2, 3, 4, 5]
        );
    }

    #[test]
    #[should_panic(expected = "3 elements; 1 heads of an even number of rows of 1")]
    fn odd_heads_panic() {
        interleaved_rows(&[0, 1, 2], 1, 1);
    }
}
