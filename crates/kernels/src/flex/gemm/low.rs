//! Products of a low a, of some tens of rows at most, with AVX-512: the hypotheses of a beam search, or the requests
//! that an engine decodes together.
//!
//! b is read from memory once, and that takes as long as multiplying. So threads divide the columns of b instead
//! of the rows of a, and no thread waits for another between copying and multiplying. Prefetching whole runs of a row,
//! and not the two cache lines of a panel, is worth a third of the time where b is not in a cache.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512::{DEPTH, Factor, ROWS, count_of, group_of, rows_of_tiles};
use super::packed::{
    COLUMNS, COPY_OF_B, Line, Out, Panels, SUMS, Words, each, even_part, reserve, transpose,
};
use super::{Then, Threads, View};

/// The maximum number of columns that a thread copies at a time: 256 KiB with [`DEPTH`], while a, too, is in the L2
/// cache.
const COPIED_COLUMNS: usize = 128;

/// Each thread copies parts of b, the entries that are words while the first tile multiplies them, and multiplies
/// them with all rows of a while they are in its core's cache.
///
/// # Safety
///
/// The same as for [`avx512::product`](super::avx512::product); b is given transposed.
pub(super) unsafe fn columns_in_parts<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    b: View<E>,
    threads: Threads,
) {
    let ([m, k], [n, _]) = (a.shape, b.shape);
    let words = k.div_ceil(E::IN_A_WORD);
    let depth = even_part(words, DEPTH);
    let parts_for_all = 2 * count_of(threads);
    let columns = n.div_ceil(parts_for_all).next_multiple_of(COLUMNS);
    let columns = columns.min(COPIED_COLUMNS);
    each(n.div_ceil(columns), threads, |i| {
        let mut buffer = COPY_OF_B.take();
        let panels = reserve(&mut buffer, depth * columns);
        let adjacent = |words: &Words| E::COPYING_TILES.is_some() && words.strides[0] == 1;
        let in_place = b.in_words().filter(adjacent);
        for p in (0..words).step_by(depth) {
            let columns = i * columns..((i + 1) * columns).min(n);
            let copy = Panels::new(panels, p..(p + depth).min(words), columns);
            match in_place {
                Some(_) => copy.fill_last_if_narrow(b),
                None => (0..copy.parts(b)).for_each(|part| copy.fill(b, part)),
            }
            let then = if p > 0 { Then::Add } else { then };
            // SAFETY: the caller guarantees the processor and the entries at `out`. Calls with different i write
            // different columns.
            unsafe { rows_of_tiles(out, then, scale, a, 0..m, &copy, in_place) };
        }
        COPY_OF_B.set(buffer);
    });
}

/// The product with a b whose columns are contiguous, such as a tied output projection: the transposed product, so
/// that b is read in place, in the order of memory, and only a is copied into panels.
///
/// # Safety
///
/// The same as for [`avx512::product`](super::avx512::product); b is given transposed.
pub(super) unsafe fn turned<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    b: View<E>,
    threads: Threads,
) {
    let ([m, k], [n, _]) = (a.shape, b.shape);
    let words = k.div_ceil(E::IN_A_WORD);
    let (depth, width) = (even_part(words, DEPTH), m.next_multiple_of(COLUMNS));
    let mut buffer = COPY_OF_B.take();
    let panels = reserve(&mut buffer, words * width);
    let copies = Panels::of_depths(panels, words, depth, 0..m);
    for copy in &copies {
        (0..copy.parts(a)).for_each(|part| copy.fill(a, part));
    }
    let part = group_of(n, threads) * ROWS;
    each(n.div_ceil(part), threads, |i| {
        let columns = i * part..((i + 1) * part).min(n);
        let mut buffer = SUMS.take();
        let sums = reserve(&mut buffer, part * width);
        // Rows of the transposed product count from the first column of this part.
        let turned = Out {
            data: sums.data.wrapping_sub(columns.start * width),
            row: width,
        };
        for copy in &copies {
            let then = match copy.depth.start {
                0 => Then::Replace,
                _ => Then::Add,
            };
            // SAFETY: the caller guarantees the processor; the sums have capacity for these rows, and are written
            // before they are added to.
            unsafe { rows_of_tiles(turned, then, scale, b, columns.clone(), copy, None) };
        }
        // SAFETY: the caller guarantees the processor and the entries at `out`; all sums were written. Calls with
        // different i write different columns.
        unsafe { write_turned(out, then, m, turned, columns) };
        SUMS.set(buffer);
    });
    COPY_OF_B.set(buffer);
}

/// Writes, or adds, columns of the result that are the rows of `turned`.
///
/// # Safety
///
/// The processor must have AVX-512. `turned` must have these rows, of `m` entries, and `out` `m` rows with
/// these columns.
#[target_feature(enable = "avx512f")]
unsafe fn write_turned(out: Out, then: Then, m: usize, turned: Out, columns: Range<usize>) {
    let mut square = [Line([0.0; 16]); 16];
    let mask = |entries: usize| ((1u32 << entries.min(16)) - 1) as __mmask16;
    for column in columns.clone().step_by(16) {
        let width = (columns.end - column).min(16);
        for row in (0..m).step_by(16) {
            let of_rows = mask(m - row);
            for (i, line) in square.iter_mut().enumerate().take(width) {
                // SAFETY: entries of a row of `turned` that were written: the mask excludes those beyond `m`.
                unsafe {
                    let sums = turned.at((column + i) * turned.row + row);
                    _mm512_store_ps(line.0.as_mut_ptr(), _mm512_maskz_loadu_ps(of_rows, sums));
                }
            }
            // SAFETY: 16 lines, read before they are written.
            unsafe { transpose(square.as_ptr().cast(), 16, square.as_mut_ptr().cast(), 16) };
            let of_columns = mask(width);
            for (i, line) in square.iter().enumerate().take(m - row) {
                // SAFETY: entries of a row of the result; the mask excludes those beyond the columns.
                unsafe {
                    let to = out.at((row + i) * out.row + column);
                    let sums = _mm512_load_ps(line.0.as_ptr());
                    let value = match then {
                        Then::Replace => sums,
                        Then::Add => _mm512_add_ps(sums, _mm512_maskz_loadu_ps(of_columns, to)),
                    };
                    _mm512_mask_storeu_ps(to, of_columns, value);
                }
            }
        }
    }
}
