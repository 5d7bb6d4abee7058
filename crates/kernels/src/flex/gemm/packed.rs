//! Copies of operands in the order in which the innermost loops of tiled products read them.
//!
//! One instruction multiplies pairs of bf16, entries that are consecutive in k. So everything here counts in
//! *words* of 32 bits: an f32 or such a pair. If k is the contiguous axis, the pairs are already in memory;
//! otherwise they are packed during the copy. An f16 becomes a word of f32 when it is copied, and so does a [`Widened`]
//! bf16.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use burn::tensor::{bf16, f16};
use rayon::prelude::*;

use super::{Threads, View};

/// Columns of a panel of b: two registers, or two tiles.
pub(super) const COLUMNS: usize = 32;
/// Rows of b that a thread copies at a time.
const COPIED_ROWS: usize = 16;

/// Entry types that are copied in words.
pub(crate) trait Word: Copy + Sync + 'static {
    /// Entries per word, consecutive in k.
    const IN_A_WORD: usize;
    /// Whether a word is the memory of its entries.
    const IS_MEMORY: bool = true;

    /// A word of one row: its first entries, padded with zeros.
    fn word(row: &[Self]) -> f32;

    /// 16 words, one for each of 16 adjacent rows: their entries at one index of k, and at the next.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512; 16 entries must be readable at each pointer, and 16 words writable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn words(entries: *const Self, next: *const Self, to: *mut f32) {
        debug_assert_eq!(
            Self::IN_A_WORD,
            1,
            "words of several entries need the next ones"
        );
        let _ = next;
        // SAFETY: guaranteed by the caller; with one entry a word it does not matter along which axis they are adjacent.
        unsafe { Self::run(entries, to) };
    }

    /// 16 words that are consecutive in k, each with [`Self::IN_A_WORD`] adjacent entries.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512; the entries must be readable, and 16 words writable.
    unsafe fn run(entries: *const Self, to: *mut f32);
}

impl Word for f32 {
    const IN_A_WORD: usize = 1;

    fn word(row: &[Self]) -> f32 {
        row[0]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn run(entries: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, _mm512_loadu_ps(entries)) };
    }
}

impl Word for bf16 {
    const IN_A_WORD: usize = 2;

    fn word(row: &[Self]) -> f32 {
        let bits = |i: usize| row.get(i).map_or(0, |x| u32::from(x.to_bits()));
        f32::from_bits(bits(0) | bits(1) << 16)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn words(entries: *const Self, next: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(entries.cast()));
            let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(next.cast()));
            let words = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
            _mm512_storeu_si512(to.cast(), words);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn run(entries: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, _mm512_loadu_ps(entries.cast())) };
    }
}

impl Word for f16 {
    const IN_A_WORD: usize = 1;
    const IS_MEMORY: bool = false;

    fn word(row: &[Self]) -> f32 {
        row[0].to_f32()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn run(entries: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(entries.cast()))) };
    }
}

/// A bf16 that becomes a word of its own, an f32, for processors that multiply no faster in pairs.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Widened(bf16);

impl Widened {
    /// The same values, to be widened.
    pub(super) fn of(x: View<bf16>) -> View<Self> {
        // SAFETY: the representations are the same.
        let data = unsafe { std::slice::from_raw_parts(x.data.as_ptr().cast(), x.data.len()) };
        x.with_data(data)
    }
}

impl Word for Widened {
    const IN_A_WORD: usize = 1;
    const IS_MEMORY: bool = false;

    fn word(row: &[Self]) -> f32 {
        row[0].0.to_f32()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn run(entries: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(entries.cast()));
            _mm512_storeu_si512(to.cast(), _mm512_slli_epi32::<16>(high));
        }
    }
}

/// A matrix to write: its first entry, with the stride of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Out<T = f32> {
    pub(crate) data: *mut T,
    pub(crate) row: usize,
}

// SAFETY: each thread writes different entries (see the products).
unsafe impl<T> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Out<T> {}

impl<T> Out<T> {
    pub(super) fn at(self, entry: usize) -> *mut T {
        self.data.wrapping_add(entry)
    }
}

/// The length of the parts when `length` is split evenly into as few parts as possible of at most `most`.
pub(super) fn even_part(length: usize, most: usize) -> usize {
    length.div_ceil(length.div_ceil(most))
}

pub(super) fn each(n: usize, threads: Threads, f: impl Fn(usize) + Send + Sync) {
    match threads {
        Threads::Caller => (0..n).for_each(f),
        Threads::All => (0..n).into_par_iter().for_each(f),
    }
}

/// A cache line, so that loads of whole registers never cross a cache line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; 16]);

pub(super) type Buffer = Vec<MaybeUninit<Line>>;

thread_local! {
    // Taken while in use: rayon may run another product on a thread that waits.
    pub(super) static COPY_OF_B: Cell<Buffer> = const { Cell::new(Vec::new()) };
    pub(super) static COPY_OF_A: Cell<Buffer> = const { Cell::new(Vec::new()) };
    pub(super) static SUMS: Cell<Buffer> = const { Cell::new(Vec::new()) };
}

/// Reserves capacity for `values` values in the buffer, and returns its memory.
pub(super) fn reserve(buffer: &mut Buffer, values: usize) -> Out {
    let lines = values.div_ceil(size_of::<Line>() / size_of::<f32>());
    if buffer.capacity() < lines {
        *buffer = Vec::with_capacity(lines);
    }
    let data = buffer.as_mut_ptr().cast();
    Out { data, row: 1 }
}

/// Rows of words in memory: the first word, and the strides from row to row and from word to word.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) data: *const f32,
    pub(super) strides: [usize; 2],
}

impl Words {
    pub(super) fn at(self, row: usize, word: usize) -> *const f32 {
        let [r, w] = self.strides;
        self.data.wrapping_add(row * r + word * w)
    }
}

/// A matrix with rows along k.
impl<E: Word> View<'_, E> {
    pub(super) fn at(&self, row: usize, entry: usize) -> *const E {
        let [r, e] = self.strides;
        self.data.as_ptr().wrapping_add(row * r + entry * e)
    }

    /// The view in words, if its words are contiguous and aligned to pairs in memory.
    pub(super) fn in_words(&self) -> Option<Words> {
        let ([_, k], [row, entry]) = (self.shape, self.strides);
        let whole = |n: usize| n.is_multiple_of(E::IN_A_WORD);
        let there = E::IN_A_WORD == 1 || entry == 1 && whole(row) && whole(k);
        (there && E::IS_MEMORY).then(|| Words {
            data: self.data.as_ptr().cast(),
            strides: [row / E::IN_A_WORD, entry],
        })
    }

    /// A word, packed from its entries.
    pub(super) fn word(&self, row: usize, word: usize) -> f32 {
        let first = word * E::IN_A_WORD;
        let last = (first + E::IN_A_WORD).min(self.shape[1]) - 1;
        // SAFETY: the entries are inside the view, as its constructor checked.
        let entries = [first, last].map(|k| unsafe { *self.at(row, k) });
        E::word(&entries[..=last - first])
    }

    /// A word of each of 16 consecutive rows, starting at `row`; zeros for rows past the last.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512; 16 words must be writable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn pack(&self, row: usize, word: usize, to: *mut f32) {
        let [rows, k] = self.shape;
        let first = word * E::IN_A_WORD;
        if self.strides[0] == 1 && row + 16 <= rows {
            let next = match first + 1 < k {
                true => self.at(row, first + 1),
                false => ZEROS.0.as_ptr().cast(),
            };
            // SAFETY: 16 adjacent entries, and as many zeros; the caller guarantees the rest.
            unsafe { E::words(self.at(row, first), next, to) };
        } else {
            for i in 0..16 {
                let word = match row + i < rows {
                    true => self.word(row + i, word),
                    false => 0.0,
                };
                // SAFETY: guaranteed by the caller.
                unsafe { *to.add(i) = word };
            }
        }
    }
}

impl<E: Word> View<'_, E> {
    /// 16 words of each of 16 rows, which [run along k](runs_along_k), as the columns of 16 half rows of a panel.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512; the words must be readable, and the half rows writable and on cache lines.
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose(&self, row: usize, word: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.in_words() {
                Some(words) => transpose(words.at(row, word), words.strides[0], to, COLUMNS),
                None => {
                    let mut rows = [Line([0.0; 16]); 16];
                    for (i, to) in rows.iter_mut().enumerate() {
                        E::run(self.at(row + i, word * E::IN_A_WORD), to.0.as_mut_ptr());
                    }
                    transpose(rows.as_ptr().cast(), 16, to, COLUMNS);
                }
            }
        }
    }
}

static ZEROS: Line = Line([0.0; 16]);

/// A part of b as consecutive panels of [`COLUMNS`] columns. A panel holds one word of all its columns after
/// the other; the last panel is padded with zeros.
pub(super) struct Panels {
    pub(super) data: Out,
    /// In words.
    pub(super) depth: Range<usize>,
    /// Rows of a panel: the depth, rounded up with rows of zeros.
    pub(super) rows: usize,
    pub(super) columns: Range<usize>,
}

impl Panels {
    /// Panels of these columns without further rows.
    pub(super) fn new(data: Out, depth: Range<usize>, columns: Range<usize>) -> Self {
        Self {
            data,
            rows: depth.len(),
            depth,
            columns,
        }
    }

    /// Panels of these columns, one after the other, for each part of the words along k.
    pub(super) fn of_depths(
        data: Out,
        words: usize,
        depth: usize,
        columns: Range<usize>,
    ) -> Vec<Self> {
        let width = columns.len().next_multiple_of(COLUMNS);
        let parts = (0..words).step_by(depth).map(|p| {
            let data = Out {
                data: data.at(p * width),
                ..data
            };
            Self::new(data, p..(p + depth).min(words), columns.clone())
        });
        parts.collect()
    }

    pub(super) fn count(&self) -> usize {
        self.columns.len().div_ceil(COLUMNS)
    }

    /// The number of columns of a panel that are not padding.
    pub(super) fn width(&self, panel: usize) -> usize {
        COLUMNS.min(self.columns.len() - panel * COLUMNS)
    }

    /// The address of a row of a panel.
    pub(super) fn at(&self, panel: usize, row: usize) -> *mut f32 {
        self.data.at((panel * self.rows + row) * COLUMNS)
    }

    /// The number of parts that [`Self::fill`] can copy at the same time.
    pub(super) fn parts<E: Word>(&self, b: View<E>) -> usize {
        match runs_along_k(b) {
            true => self.count(),
            false => self.rows.div_ceil(COPIED_ROWS),
        }
    }

    /// Copies a part from b, given with its columns as rows.
    pub(super) fn fill<E: Word>(&self, b: View<E>, part: usize) {
        if runs_along_k(b) {
            self.turn(b, part);
        } else {
            let rows = part * COPIED_ROWS..((part + 1) * COPIED_ROWS).min(self.rows);
            // SAFETY: the products guarantee the processor.
            unsafe { self.copy_rows(b, 0..self.count(), rows) };
        }
    }

    /// Copies the last panel if it is not full.
    pub(super) fn fill_last_if_narrow<E: Word>(&self, b: View<E>) {
        let last = self.count() - 1;
        if self.width(last) < COLUMNS {
            // SAFETY: the products guarantee the processor.
            unsafe { self.copy_rows(b, last..last + 1, 0..self.rows) };
        }
    }

    /// A panel from columns that are contiguous in memory.
    fn turn<E: Word>(&self, b: View<E>, panel: usize) {
        let mut row = 0;
        if self.width(panel) == COLUMNS {
            while row + 16 <= self.depth.len() {
                for half in [0, 16] {
                    let column = self.columns.start + panel * COLUMNS + half;
                    let to = self.at(panel, row).wrapping_add(half);
                    // SAFETY: the products guarantee the processor. This reads 16 adjacent words of each of
                    // 16 columns of b, and writes half of 16 rows of the panel, which start on cache lines.
                    unsafe { b.transpose(column, self.depth.start + row, to) };
                }
                row += 16;
            }
        }
        // SAFETY: as above.
        unsafe { self.copy_rows(b, panel..panel + 1, row..self.rows) };
    }

    /// Some rows of some panels.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn copy_rows<E: Word>(&self, b: View<E>, panels: Range<usize>, rows: Range<usize>) {
        for row in rows {
            for panel in panels.clone() {
                for half in [0, 16] {
                    let column = self.columns.start + panel * COLUMNS + half;
                    let to = self.at(panel, row).wrapping_add(half);
                    // SAFETY: this writes half a row of the panel.
                    unsafe {
                        match row < self.depth.len() {
                            true => b.pack(column, self.depth.start + row, to),
                            false => to.write_bytes(0, 16),
                        }
                    };
                }
            }
        }
    }
}

/// Whether the words of a row are contiguous in memory.
pub(super) fn runs_along_k<E: Word>(x: View<E>) -> bool {
    match E::IS_MEMORY {
        true => x.in_words().is_some_and(|words| words.strides[1] == 1),
        false => x.strides[1] == 1,
    }
}

/// Transposes 16 runs of 16 values, `stride` apart, to runs that are `to_stride` apart.
///
/// # Safety
///
/// The processor must have AVX-512, and the runs must be readable and writable.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: guaranteed by the caller.
    let rows: [__m512; 16] =
        std::array::from_fn(|i| unsafe { _mm512_loadu_ps(from.add(i * stride)) });
    // Pairs of rows, then groups of four: entry l of quad[4 i + j] holds, in its l-th quarter, column 4 l + j
    // of rows 4 i to 4 i + 3.
    let mut pair = rows;
    for i in 0..8 {
        let (x, y) = (rows[2 * i], rows[2 * i + 1]);
        pair[2 * i] = _mm512_unpacklo_ps(x, y);
        pair[2 * i + 1] = _mm512_unpackhi_ps(x, y);
    }
    let mut quad = pair;
    for i in 0..4 {
        for h in 0..2 {
            let x = _mm512_castps_pd(pair[4 * i + h]);
            let y = _mm512_castps_pd(pair[4 * i + h + 2]);
            quad[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            quad[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    }
    for j in 0..4 {
        let [x, y, z, w] = [0, 4, 8, 12].map(|i| quad[i + j]);
        // Quarters 0 and 2 of each, then 1 and 3.
        let (even, even_below) = (
            _mm512_shuffle_f32x4::<0x88>(x, y),
            _mm512_shuffle_f32x4::<0x88>(z, w),
        );
        let (odd, odd_below) = (
            _mm512_shuffle_f32x4::<0xdd>(x, y),
            _mm512_shuffle_f32x4::<0xdd>(z, w),
        );
        let columns = [
            _mm512_shuffle_f32x4::<0x88>(even, even_below),
            _mm512_shuffle_f32x4::<0x88>(odd, odd_below),
            _mm512_shuffle_f32x4::<0xdd>(even, even_below),
            _mm512_shuffle_f32x4::<0xdd>(odd, odd_below),
        ];
        for (l, column) in columns.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to.add((4 * l + j) * to_stride), column) };
        }
    }
}
