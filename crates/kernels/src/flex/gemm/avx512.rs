//! Products of large matrices on processors with AVX-512: f32, and bf16 with sums in f32.
//!
//! The scheme is that of Goto and van de Geijn (*Anatomy of High-Performance Matrix Multiplication*, 2008): a
//! block of b is copied into panels of 32 columns, in the order in which the innermost loop reads it, and
//! every tile of 14 x 32 entries of the result is accumulated in registers.
//!
//! The gemm crate is slower here: it copies a transposed operand entry by entry and, below about a thousand
//! rows, on a single thread. Half of the products of a backward pass have such an operand. Here all threads
//! copy: a transposed b is copied by blocks of 16 x 16 in registers, and a is read in place. Sums are taken
//! in the same order: over at most 512 products at a time, with fused multiply-add, in the order of k. Where
//! the gemm crate splits k in the same way, results are bitwise identical.
//!
//! One instruction (VDPBF16PS) multiplies pairs of bf16, entries that are consecutive in k, twice as many as
//! of f32. So everything here counts in *words* of 32 bits: an f32 or such a pair. If k is the contiguous
//! axis, the pairs are already in memory; otherwise they are packed during the copy, those of a as well.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::{MaybeUninit, transmute};
use std::ops::Range;

use burn::tensor::bf16;
use rayon::prelude::*;

use super::{Then, Threads, View};

/// Rows of a tile. With two registers per row, 28 of 32 registers hold sums.
const ROWS: usize = 14;
/// Columns of a tile: two registers.
const COLUMNS: usize = 32;
/// The maximum number of words that are multiplied before the sum is written to memory, as in the gemm crate.
const DEPTH: usize = 512;
/// The maximum number of columns of b that are copied at a time: 4 MiB with the depth above, for the
/// last-level cache.
const COPIED_COLUMNS: usize = 2048;
/// The maximum number of tiles of rows that a thread computes at a time.
const GROUP: usize = 6;
/// Prefetch distance, in products, for the entries of a transposed a.
const AHEAD: usize = 24;
/// Rows of b that a thread copies at a time.
const COPIED_ROWS: usize = 16;

/// Products with fewer multiplications run on one thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// Entry types that are multiplied.
pub(crate) trait Factor: Copy + Sync + 'static {
    /// Entries per word, consecutive in k.
    const IN_A_WORD: usize;
    /// The kernels for tiles of 1 to [`ROWS`] rows.
    const TILES: [Tile; ROWS];

    /// Whether [`product`] supports these operands and is faster than the alternative.
    fn are_served(a: View<Self>, b: View<Self>) -> bool;

    /// A word of one row: its first entries, padded with zeros.
    fn word(row: &[Self]) -> f32;

    /// 16 words, one for each of 16 adjacent rows: their entries at one index of k, and at the next.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512; 16 entries must be readable at each pointer, and 16 words writable.
    unsafe fn words(entries: *const Self, next: *const Self, to: *mut f32);
}

impl Factor for f32 {
    const IN_A_WORD: usize = 1;
    const TILES: [Tile; ROWS] = tiles!(f32_tile 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    /// The copy of b must pay off: the gemm crate does not copy b if its rows are contiguous.
    fn are_served(a: View, b: View) -> bool {
        let ([m, k], [_, n]) = (a.shape, b.shape);
        let rows = if b.strides[1] == 1 { 256 } else { 64 };
        m >= rows && n >= COLUMNS && k >= 16 && is_x86_feature_detected!("avx512f")
    }

    fn word(row: &[Self]) -> f32 {
        row[0]
    }

    unsafe fn words(entries: *const Self, _: *const Self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { std::ptr::copy_nonoverlapping(entries, to, 16) };
    }
}

impl Factor for bf16 {
    const IN_A_WORD: usize = 2;
    const TILES: [Tile; ROWS] = tiles!(bf16_tile 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    /// The alternative converts both operands to f32 first.
    fn are_served(a: View<Self>, b: View<Self>) -> bool {
        let ([m, k], [_, n]) = (a.shape, b.shape);
        m >= ROWS
            && n >= COLUMNS
            && k >= 16
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bf16")
    }

    fn word(row: &[Self]) -> f32 {
        let bits = |i: usize| row.get(i).map_or(0, |x| u32::from(x.to_bits()));
        f32::from_bits(bits(0) | bits(1) << 16)
    }

    unsafe fn words(entries: *const Self, next: *const Self, to: *mut f32) {
        #[target_feature(enable = "avx512f")]
        unsafe fn words(entries: *const bf16, next: *const bf16, to: *mut f32) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(entries.cast()));
                let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(next.cast()));
                let words = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                _mm512_storeu_si512(to.cast(), words);
            }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { words(entries, next, to) };
    }
}

/// The result's first entry, with the stride of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) data: *mut f32,
    pub(crate) row: usize,
}

// SAFETY: each thread writes different entries (see `product`).
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// `out = scale a b`, or `out += scale a b`.
///
/// # Safety
///
/// [`Factor::are_served`] must have returned true. The rows of a matrix of a's height and b's width at `out`
/// must be writable, and with [`Then::Add`] readable; they must not overlap each other, nor a or b.
pub(super) unsafe fn product<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    b: View<E>,
    threads: Threads,
) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let threads = match m * n * k < WORTH_A_THREAD {
        true => Threads::Caller,
        false => threads,
    };
    // Both operands with rows along k.
    let b = b.transposed();
    let words = k.div_ceil(E::IN_A_WORD);
    let (depth, columns) = (even_part(words, DEPTH), even_part(n, COPIED_COLUMNS));
    let columns = columns.next_multiple_of(COLUMNS);
    let mut buffer = COPY_OF_B.take();
    let panels = reserve(&mut buffer, depth * columns);
    let group = group_of(m, threads) * ROWS;
    for c in (0..n).step_by(columns) {
        for p in (0..words).step_by(depth) {
            let copy = Panels {
                data: panels,
                depth: p..(p + depth).min(words),
                columns: c..(c + columns).min(n),
            };
            copy.fill(b, threads);
            let then = if p > 0 { Then::Add } else { then };
            each(m.div_ceil(group), threads, |i| {
                let rows = i * group..((i + 1) * group).min(m);
                // SAFETY: the caller guarantees the processor and the entries at `out`. Calls with different
                // i write different rows.
                unsafe { rows_of_tiles(out, then, scale, a, rows, &copy) };
            });
        }
    }
    COPY_OF_B.set(buffer);
}

/// The length of the parts when `length` is split evenly into as few parts as possible of at most `most`.
fn even_part(length: usize, most: usize) -> usize {
    length.div_ceil(length.div_ceil(most))
}

/// The number of tiles of rows that a thread computes at a time: small enough that all threads finish
/// together.
fn group_of(m: usize, threads: Threads) -> usize {
    let threads = match threads {
        Threads::Caller => 1,
        Threads::All => rayon::current_num_threads(),
    };
    (m.div_ceil(ROWS) / (16 * threads)).clamp(1, GROUP)
}

fn each(n: usize, threads: Threads, f: impl Fn(usize) + Send + Sync) {
    match threads {
        Threads::Caller => (0..n).for_each(f),
        Threads::All => (0..n).into_par_iter().for_each(f),
    }
}

/// A cache line, so that loads of whole registers never cross a cache line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

type Buffer = Vec<MaybeUninit<Line>>;

thread_local! {
    // Taken while in use: rayon may run another product on a thread that waits.
    static COPY_OF_B: Cell<Buffer> = const { Cell::new(Vec::new()) };
    static COPY_OF_A: Cell<Buffer> = const { Cell::new(Vec::new()) };
}

/// Reserves capacity for `values` values in the buffer, and returns its memory.
fn reserve(buffer: &mut Buffer, values: usize) -> Out {
    let lines = values.div_ceil(size_of::<Line>() / size_of::<f32>());
    if buffer.capacity() < lines {
        *buffer = Vec::with_capacity(lines);
    }
    let data = buffer.as_mut_ptr().cast();
    Out { data, row: 1 }
}

impl Out {
    fn at(self, entry: usize) -> *mut f32 {
        self.data.wrapping_add(entry)
    }
}

/// Rows of words in memory: the first word, and the strides from row to row and from word to word.
#[derive(Clone, Copy)]
struct Words {
    data: *const f32,
    strides: [usize; 2],
}

impl Words {
    fn at(self, row: usize, word: usize) -> *const f32 {
        let [r, w] = self.strides;
        self.data.wrapping_add(row * r + word * w)
    }
}

/// A matrix with rows along k.
impl<E: Factor> View<'_, E> {
    fn at(&self, row: usize, entry: usize) -> *const E {
        let [r, e] = self.strides;
        self.data.as_ptr().wrapping_add(row * r + entry * e)
    }

    /// The view in words, if its words are contiguous and aligned to pairs in memory.
    fn in_words(&self) -> Option<Words> {
        let ([_, k], [row, entry]) = (self.shape, self.strides);
        let whole = |n: usize| n.is_multiple_of(E::IN_A_WORD);
        let there = E::IN_A_WORD == 1 || entry == 1 && whole(row) && whole(k);
        there.then(|| Words {
            data: self.data.as_ptr().cast(),
            strides: [row / E::IN_A_WORD, entry],
        })
    }

    /// A word, packed from its entries.
    fn word(&self, row: usize, word: usize) -> f32 {
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
    unsafe fn pack(&self, row: usize, word: usize, to: *mut f32) {
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

static ZEROS: Line = Line([0.0; 16]);

/// A part of b as consecutive panels of [`COLUMNS`] columns. A panel holds one word of all its columns after
/// the other; the last panel is padded with zeros.
struct Panels {
    data: Out,
    /// In words.
    depth: Range<usize>,
    columns: Range<usize>,
}

impl Panels {
    fn count(&self) -> usize {
        self.columns.len().div_ceil(COLUMNS)
    }

    /// The number of columns of a panel that are not padding.
    fn width(&self, panel: usize) -> usize {
        COLUMNS.min(self.columns.len() - panel * COLUMNS)
    }

    /// The address of a row of a panel.
    fn at(&self, panel: usize, row: usize) -> *mut f32 {
        self.data.at((panel * self.depth.len() + row) * COLUMNS)
    }

    /// Copies from b, given with its columns as rows.
    fn fill<E: Factor>(&self, b: View<E>, threads: Threads) {
        match b.in_words() {
            Some(words) if words.strides[1] == 1 => each(self.count(), threads, |panel| {
                self.turn(b, panel);
            }),
            _ => each(self.depth.len().div_ceil(COPIED_ROWS), threads, |i| {
                let rows = i * COPIED_ROWS..((i + 1) * COPIED_ROWS).min(self.depth.len());
                for row in rows {
                    for panel in 0..self.count() {
                        self.copy_row(b, panel, row);
                    }
                }
            }),
        }
    }

    /// A panel from columns that are contiguous in memory.
    fn turn<E: Factor>(&self, b: View<E>, panel: usize) {
        let words = b.in_words().expect("invariant: checked by fill");
        let mut row = 0;
        if self.width(panel) == COLUMNS {
            while row + 16 <= self.depth.len() {
                for half in [0, 16] {
                    let column = self.columns.start + panel * COLUMNS + half;
                    let from = words.at(column, self.depth.start + row);
                    let to = self.at(panel, row).wrapping_add(half);
                    // SAFETY: `product` guarantees the processor. This reads 16 adjacent words of each of 16
                    // columns of b, and writes half of 16 rows of the panel, which start on cache lines.
                    unsafe { transpose(from, words.strides[0], to) };
                }
                row += 16;
            }
        }
        for row in row..self.depth.len() {
            self.copy_row(b, panel, row);
        }
    }

    /// One row of a panel.
    fn copy_row<E: Factor>(&self, b: View<E>, panel: usize, row: usize) {
        for half in [0, 16] {
            let column = self.columns.start + panel * COLUMNS + half;
            let to = self.at(panel, row).wrapping_add(half);
            // SAFETY: `product` guarantees the processor; this writes half a row of the panel.
            unsafe { b.pack(column, self.depth.start + row, to) };
        }
    }
}

/// Transposes 16 runs of 16 values, `stride` apart, into the columns of 16 half rows of a panel.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: the caller guarantees that the runs are readable and the half rows writable.
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
            unsafe { _mm512_store_ps(to.add((4 * l + j) * COLUMNS), column) };
        }
    }
}

/// Computes some rows of the result: their tiles with all panels.
///
/// # Safety
///
/// The same as for [`product`], for these rows; the panels must be filled.
unsafe fn rows_of_tiles<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    rows: Range<usize>,
    b: &Panels,
) {
    let depth = b.depth.len();
    let mut buffer = COPY_OF_A.take();
    let tiles = match a.in_words() {
        Some(words) if rows_conflict_in_cache(words) => {
            copy_rows(&mut buffer, words, rows.clone(), b.depth.clone())
        }
        Some(words) => Tiles {
            data: words.at(rows.start, b.depth.start),
            tile: ROWS * words.strides[0],
            strides: words.strides,
        },
        None => pack(&mut buffer, a, rows.clone(), b.depth.clone()),
    };
    for (i, first) in rows.clone().step_by(ROWS).enumerate() {
        let height = ROWS.min(rows.end - first);
        let a = (tiles.data.wrapping_add(i * tiles.tile), tiles.strides);
        for panel in 0..b.count() {
            let to = out.at(first * out.row + b.columns.start + panel * COLUMNS);
            let to = Out { data: to, ..out };
            // SAFETY: guaranteed by the caller, as this is one tile of its rows; a's rows and the panel have
            // `depth` words.
            unsafe {
                let panel = (b.at(panel, 0).cast_const(), b.width(panel));
                E::TILES[height - 1](to, then, scale, a, panel, depth);
            }
        }
    }
    COPY_OF_A.set(buffer);
}

/// Rows of a for some tiles: the first word, the stride from tile to tile, and the strides within a tile.
struct Tiles {
    data: *const f32,
    tile: usize,
    strides: [usize; 2],
}

/// Whether the rows of a tile would evict each other from the L1 cache: rows a multiple of 4 KiB apart map to
/// the same sets, which have fewer ways than a tile has rows.
fn rows_conflict_in_cache(a: Words) -> bool {
    a.strides[1] == 1 && a.strides[0].is_multiple_of(1024)
}

/// A copy of rows of a with padding of a cache line between rows.
fn copy_rows(buffer: &mut Buffer, a: Words, rows: Range<usize>, depth: Range<usize>) -> Tiles {
    let row = depth.len().next_multiple_of(16) + 16;
    let copy = reserve(buffer, rows.len() * row);
    for (i, r) in rows.enumerate() {
        let (from, to) = (a.at(r, depth.start), copy.at(i * row));
        // SAFETY: adjacent words of one row of a, as `rows_conflict_in_cache` checked; the copy has capacity
        // for them.
        unsafe { std::ptr::copy_nonoverlapping(from, to, depth.len()) };
    }
    Tiles {
        data: copy.data,
        tile: ROWS * row,
        strides: [row, 1],
    }
}

/// A packed copy of rows of a whose words are not contiguous: for each tile the words of its rows, and of two
/// more, by depth.
fn pack<E: Factor>(
    buffer: &mut Buffer,
    a: View<E>,
    rows: Range<usize>,
    depth: Range<usize>,
) -> Tiles {
    let tile = 16 * depth.len();
    let copy = reserve(buffer, rows.len().div_ceil(ROWS) * tile);
    for (w, word) in depth.enumerate() {
        for (i, row) in rows.clone().step_by(ROWS).enumerate() {
            // SAFETY: `product` guarantees the processor; the copy has capacity for the words.
            unsafe { a.pack(row, word, copy.at(i * tile + 16 * w)) };
        }
    }
    Tiles {
        data: copy.data,
        tile,
        strides: [1, 16],
    }
}

/// Arguments: the tile's destination, how it is combined with it, the factor; a's first word and its strides;
/// the panel and its width; the depth.
pub(in super::super) type Tile =
    unsafe fn(Out, Then, f32, (*const f32, [usize; 2]), (*const f32, usize), usize);

macro_rules! tiles {
    ($tile:ident $($height:literal)*) => { [$($tile::<$height> as Tile),*] };
}
use tiles;

/// The tile kernels of one type. `$more` adds the products of a word of `$a` and of `$b` to `$sum`.
macro_rules! tile {
    ($name:ident, $features:literal, |$a:ident, $b:ident, $sum:ident| $more:expr) => {
        /// Computes a tile of the result.
        ///
        /// Index arithmetic wraps and a's words are loaded through pointers, so that no build profile adds
        /// checks between the products.
        ///
        /// # Safety
        ///
        /// The processor must have the features. The tile must be writable, and readable if it is added to; a
        /// must have `HEIGHT` rows of `depth` words, the panel `depth` rows.
        #[target_feature(enable = $features)]
        unsafe fn $name<const HEIGHT: usize>(
            out: Out,
            then: Then,
            scale: f32,
            (a, strides): (*const f32, [usize; 2]),
            (mut b, width): (*const f32, usize),
            depth: usize,
        ) {
            let out_rows: [_; HEIGHT] = std::array::from_fn(|r| out.at(r.wrapping_mul(out.row)));
            for row in out_rows {
                for half in [0, 16] {
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(half).cast());
                }
            }
            let rows: [_; HEIGHT] =
                std::array::from_fn(|r| a.wrapping_add(r.wrapping_mul(strides[0])));
            let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
            let mut entry = 0usize;
            for _ in 0..depth {
                // Each product of a transposed a reads entries of one row, and rows are too far apart for the
                // hardware prefetcher. Prefetching past the end has no effect.
                let ahead =
                    rows[0].wrapping_add(entry.wrapping_add(AHEAD.wrapping_mul(strides[1])));
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(ROWS - 1).cast());
                // SAFETY: a row of the panel, aligned to a cache line, and an entry of each row of a.
                unsafe {
                    let columns = [_mm512_load_ps(b), _mm512_load_ps(b.wrapping_add(16))];
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let a = _mm512_broadcastss_ps(_mm_load_ss(row.wrapping_add(entry)));
                        for (sum, b) in sums.iter_mut().zip(columns) {
                            let ($a, $b, $sum) = (a, b, *sum);
                            *sum = $more;
                        }
                    }
                }
                entry = entry.wrapping_add(strides[1]);
                b = b.wrapping_add(COLUMNS);
            }
            let scale = _mm512_set1_ps(scale);
            for (half, columns) in [(0, width.min(16)), (1, width.saturating_sub(16))] {
                let mask = ((1u32 << columns) - 1) as __mmask16;
                for (sums, row) in sums.iter().zip(out_rows) {
                    let to = row.wrapping_add(16 * half);
                    // SAFETY: entries of the tile; the mask excludes those beyond it.
                    unsafe {
                        let value = match then {
                            Then::Replace => _mm512_mul_ps(scale, sums[half]),
                            Then::Add => {
                                _mm512_fmadd_ps(scale, sums[half], _mm512_maskz_loadu_ps(mask, to))
                            }
                        };
                        _mm512_mask_storeu_ps(to, mask, value);
                    }
                }
            }
        }
    };
}

tile!(f32_tile, "avx512f", |a, b, sum| _mm512_fmadd_ps(a, b, sum));
tile!(bf16_tile, "avx512f,avx512bf16", |a, b, sum| {
    // Registers of the same size, for which every bit pattern is valid.
    _mm512_dpbf16_ps(
        sum,
        transmute::<__m512, __m512bh>(a),
        transmute::<__m512, __m512bh>(b),
    )
});
