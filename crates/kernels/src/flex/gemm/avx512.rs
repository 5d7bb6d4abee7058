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
//! One instruction (VDPBF16PS) multiplies pairs of bf16, so lengths along k are in words ([`packed`](super::packed)).

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use burn::tensor::{bf16, f16};

use super::packed::{
    Buffer, COLUMNS, COPY_OF_A, COPY_OF_B, Out, Panels, SUMS, Widened, Word, Words, each,
    even_part, reserve, runs_along_k,
};
use super::{Entry, Then, Threads, View, low};

/// Rows of a tile. With two registers per row, 28 of 32 registers hold sums.
pub(super) const ROWS: usize = 14;
/// The maximum number of words that are multiplied before the sum is written to memory, as in the gemm crate.
pub(super) const DEPTH: usize = 512;
/// The maximum number of columns of b that are copied at a time: 1 MiB with the depth above, for the L2 cache.
const COPIED_COLUMNS: usize = 512;
/// Up to this many rows of a, threads divide the columns of b ([`low`]); beyond it the rows of a.
const FEW_ROWS: usize = 96;
/// The maximum number of tiles of rows that a thread computes at a time.
const GROUP: usize = 6;
/// Prefetch distance, in products, for the entries of a transposed a.
const AHEAD: usize = 24;
/// The same for the rows of a panel, and for those of b in memory.
const PANEL_AHEAD: usize = 16;
const MEMORY_AHEAD: usize = 32;

/// Products with fewer multiplications run on one thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// Entry types that are multiplied.
pub(super) trait Factor: Word {
    /// The kernels for tiles of 1 to [`ROWS`] rows.
    const TILES: [Tile; ROWS];
    /// Those that read b where it is, if its entries are words, and copy it while they multiply.
    const COPYING_TILES: Option<[Tile; ROWS]> = None;
    /// Those for an a that is read from memory.
    const STREAMING_TILES: [Tile; ROWS];

    /// Whether [`product`] is faster than the alternative, on a processor that has the instructions. For half
    /// precision the alternative converts both operands to f32 first.
    fn pays(a: View<Self>, b: View<Self>, _threads: Threads) -> bool {
        let ([m, k], [_, n]) = (a.shape, b.shape);
        m >= ROWS && n >= COLUMNS && k >= 16
    }
}

impl Factor for f32 {
    const TILES: [Tile; ROWS] = tiles!(f32_tile CACHED 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    const COPYING_TILES: Option<[Tile; ROWS]> =
        Some(tiles!(f32_tile B_IN_MEMORY 1 2 3 4 5 6 7 8 9 10 11 12 13 14));
    const STREAMING_TILES: [Tile; ROWS] =
        tiles!(f32_tile A_IN_MEMORY 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    /// The copy of b must pay off: the gemm crate does not copy b if its rows are contiguous. A [low a](low) is
    /// multiplied as b is copied, in one pass over b.
    fn pays(a: View, b: View, threads: Threads) -> bool {
        let ([m, k], [_, n]) = (a.shape, b.shape);
        let many = if b.strides[1] == 1 { 256 } else { 64 };
        (is_low(m, threads) && m > 8 || m >= many) && n >= COLUMNS && k >= 16
    }
}

impl Factor for bf16 {
    const TILES: [Tile; ROWS] = tiles!(bf16_tile CACHED 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    const STREAMING_TILES: [Tile; ROWS] =
        tiles!(bf16_tile A_IN_MEMORY 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

impl Factor for f16 {
    const TILES: [Tile; ROWS] = <f32 as Factor>::TILES;
    const STREAMING_TILES: [Tile; ROWS] = <f32 as Factor>::STREAMING_TILES;
}

impl Factor for Widened {
    const TILES: [Tile; ROWS] = <f32 as Factor>::TILES;
    const STREAMING_TILES: [Tile; ROWS] = <f32 as Factor>::STREAMING_TILES;
}

/// `out = scale a b`, or `out += scale a b`.
///
/// # Safety
///
/// The processor must have AVX-512F and, for bf16, AVX512-BF16; k must not be 0. The rows of a matrix of a's height and b's width at `out`
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
    let is_low = is_low(m, threads);
    let threads = threads_for(m * n * k, threads);
    // Both operands with rows along k.
    let b = b.transposed();
    // SAFETY: guaranteed by the caller.
    unsafe {
        match is_low {
            true if runs_along_k(b) => low::turned(out, then, scale, a, b, threads),
            true => low::columns_in_parts(out, then, scale, a, b, threads),
            false => rows_in_parts(out, then, scale, a, b, threads),
        }
    }
}

/// The kernels of [`product_in_place`].
const TILES_IN_PLACE: [Tile; ROWS] = tiles!(f32_tile IN_PLACE 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

/// Whether [`product_in_place`] serves it: a product of one thread, as of the tiles of attention, with a b whose rows are
/// contiguous and rows enough that multiply-adds do not wait for each other.
pub(super) fn reads_in_place(a: View, b: View, threads: Threads) -> bool {
    threads == Threads::Caller && b.strides[1] == 1 && a.shape[0] >= 8
}

/// [`product`] of matrices that are in a core's caches: neither is copied or prefetched.
///
/// # Safety
///
/// The same as for [`product`]; the rows of b must be contiguous.
pub(super) unsafe fn product_in_place(out: Out, then: Then, scale: f32, a: View, b: View) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let height = even_part(m, ROWS);
    for column in (0..n).step_by(COLUMNS) {
        let columns = Columns {
            data: b.at(0, column),
            row: b.strides[0],
            width: COLUMNS.min(n - column),
            copy: std::ptr::null_mut(),
            fetched: 0,
        };
        for row in (0..m).step_by(height) {
            let data = a.at(row, 0);
            let rows = Rows {
                data,
                strides: a.strides,
                next: data,
            };
            let to = Out {
                data: out.at(row * out.row + column),
                ..out
            };
            let tile = TILES_IN_PLACE[height.min(m - row) - 1];
            // SAFETY: guaranteed by the caller, as this is a part of the product.
            unsafe { tile(to, then, scale, rows, columns, k) };
        }
    }
}

/// Whether [`rounded_product`] serves it: a tall a, and a b of which enough columns can be copied in their whole depth.
pub(super) fn can_round<E: Factor>(a: View<E>, b: View<E>) -> bool {
    let [m, k] = a.shape;
    let fits = k > 0 && k.div_ceil(E::IN_A_WORD) <= 4 * DEPTH;
    fits && !is_low(m, Threads::All) && E::pays(a, b, Threads::All)
}

/// `a b`, with the same bits as [`product`], and rounded to `T` while a thread has the sums of some rows in its cache.
///
/// # Safety
///
/// The same as for [`product`], for a destination of `T`.
pub(super) unsafe fn rounded_product<E: Factor, T: Entry>(out: Out<T>, a: View<E>, b: View<E>) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let threads = threads_for(m * n * k, Threads::All);
    let b = b.transposed();
    let words = k.div_ceil(E::IN_A_WORD);
    let depth = even_part(words, DEPTH);
    let most = (DEPTH * COPIED_COLUMNS / words / COLUMNS * COLUMNS).min(COPIED_COLUMNS);
    let width = even_part(n, most).next_multiple_of(COLUMNS);
    let mut buffer = COPY_OF_B.take();
    let panels = reserve(&mut buffer, words * width);
    let group = group_of(m, threads) * ROWS;
    for c in (0..n).step_by(width) {
        let columns = c..(c + width).min(n);
        let copies = Panels::of_depths(panels, words, depth, columns.clone());
        for copy in &copies {
            each(copy.parts(b), threads, |part| copy.fill(b, part));
        }
        each(m.div_ceil(group), threads, |i| {
            let rows = i * group..((i + 1) * group).min(m);
            let mut buffer = SUMS.take();
            let sums = reserve(&mut buffer, group * width);
            // Entries of the result count from the first row and column of this part.
            let first = rows.start * width + columns.start;
            let part = Out {
                data: sums.data.wrapping_sub(first),
                row: width,
            };
            for copy in &copies {
                let then = match copy.depth.start {
                    0 => Then::Replace,
                    _ => Then::Add,
                };
                // SAFETY: the caller guarantees the processor; the sums have capacity for these rows, and are
                // written before they are added to.
                unsafe { rows_of_tiles(part, then, 1.0, a, rows.clone(), copy, None) };
            }
            let mut rounded = [T::default(); COPIED_COLUMNS];
            let rounded = &mut rounded[..columns.len()];
            for (i, row) in rows.enumerate() {
                let to = out.at(row * out.row + columns.start);
                // SAFETY: sums of a row, which were written, and as many entries of the result, for which the
                // caller guarantees. Calls with different i write different rows.
                unsafe {
                    let sums = std::slice::from_raw_parts(sums.at(i * width), columns.len());
                    T::write(sums, rounded);
                    to.copy_from_nonoverlapping(rounded.as_ptr(), columns.len());
                }
            }
            SUMS.set(buffer);
        });
    }
    COPY_OF_B.set(buffer);
}

/// One thread for a product of few multiplications.
fn threads_for(multiplications: usize, threads: Threads) -> Threads {
    match multiplications < WORTH_A_THREAD {
        true => Threads::Caller,
        false => threads,
    }
}

/// Whether the product is one of [`low`]. Those of a single thread are not: they are the tiles of attention, whose
/// operands are in the cache.
fn is_low(m: usize, threads: Threads) -> bool {
    m <= FEW_ROWS && threads == Threads::All
}

/// The product of a tall a: all threads copy a block of b, then divide the rows of a.
///
/// # Safety
///
/// The same as for [`product`]; b is given transposed.
unsafe fn rows_in_parts<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    b: View<E>,
    threads: Threads,
) {
    let ([m, k], [n, _]) = (a.shape, b.shape);
    let words = k.div_ceil(E::IN_A_WORD);
    let (depth, columns) = (even_part(words, DEPTH), even_part(n, COPIED_COLUMNS));
    let columns = columns.next_multiple_of(COLUMNS);
    let mut buffer = COPY_OF_B.take();
    let panels = reserve(&mut buffer, depth * columns);
    let group = group_of(m, threads) * ROWS;
    for c in (0..n).step_by(columns) {
        for p in (0..words).step_by(depth) {
            let columns = c..(c + columns).min(n);
            let copy = Panels::new(panels, p..(p + depth).min(words), columns);
            each(copy.parts(b), threads, |part| copy.fill(b, part));
            let then = if p > 0 { Then::Add } else { then };
            each(m.div_ceil(group), threads, |i| {
                let rows = i * group..((i + 1) * group).min(m);
                // SAFETY: the caller guarantees the processor and the entries at `out`. Calls with different
                // i write different rows.
                unsafe { rows_of_tiles(out, then, scale, a, rows, &copy, None) };
            });
        }
    }
    COPY_OF_B.set(buffer);
}

pub(super) fn count_of(threads: Threads) -> usize {
    match threads {
        Threads::Caller => 1,
        Threads::All => rayon::current_num_threads(),
    }
}

/// The number of tiles of rows that a thread computes at a time: small enough that all threads finish
/// together.
pub(super) fn group_of(m: usize, threads: Threads) -> usize {
    (m.div_ceil(ROWS) / (16 * count_of(threads))).clamp(1, GROUP)
}

/// Computes some rows of the result: their tiles with all panels. If b is given in place, the first tiles copy
/// its columns into those panels that are full.
///
/// # Safety
///
/// The same as for [`product`], for these rows; the other panels must be filled.
pub(super) unsafe fn rows_of_tiles<E: Factor>(
    out: Out,
    then: Then,
    scale: f32,
    a: View<E>,
    rows: Range<usize>,
    b: &Panels,
    in_place: Option<Words>,
) {
    let depth = b.depth.len();
    let mut buffer = COPY_OF_A.take();
    let tiles = match a.in_words() {
        Some(words) if rows_conflict_in_cache(words) => {
            copy_rows(&mut buffer, a, rows.clone(), b.depth.clone())
        }
        Some(words) => Tiles {
            data: words.at(rows.start, b.depth.start),
            tile: ROWS * words.strides[0],
            strides: words.strides,
        },
        None if !E::IS_MEMORY && runs_along_k(a) => {
            copy_rows(&mut buffer, a, rows.clone(), b.depth.clone())
        }
        None => pack(&mut buffer, a, rows.clone(), b.depth.clone()),
    };
    for (i, first) in rows.clone().step_by(ROWS).enumerate() {
        let height = ROWS.min(rows.end - first);
        let data = tiles.data.wrapping_add(i * tiles.tile);
        // With so few panels a is read from memory, so the next tile is fetched during this one.
        let streams = tiles.strides == [depth, 1] && b.count() <= FEW_ROWS / COLUMNS;
        let a = Rows {
            data,
            strides: tiles.strides,
            next: data.wrapping_add(tiles.tile),
        };
        for panel in 0..b.count() {
            let to = out.at(first * out.row + b.columns.start + panel * COLUMNS);
            let to = Out { data: to, ..out };
            let mut columns = Columns {
                data: b.at(panel, 0),
                row: COLUMNS,
                width: b.width(panel),
                copy: b.at(panel, 0),
                // The tile of the first panel prefetches for all: memory gives long runs faster.
                fetched: if panel == 0 { b.columns.len() } else { 0 },
            };
            let tile = match (in_place, E::COPYING_TILES) {
                (Some(words), Some(copying)) if i == 0 && columns.width == COLUMNS => {
                    columns.data = words.at(b.columns.start + panel * COLUMNS, b.depth.start);
                    columns.row = words.strides[1];
                    copying[height - 1]
                }
                _ if streams => E::STREAMING_TILES[height - 1],
                _ => E::TILES[height - 1],
            };
            // SAFETY: guaranteed by the caller, as this is one tile of its rows; a's rows and b's columns have
            // `depth` words.
            unsafe { tile(to, then, scale, a, columns, depth) };
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

/// A copy of rows of a that run along k, with padding of a cache line between rows.
fn copy_rows<E: Factor>(
    buffer: &mut Buffer,
    a: View<E>,
    rows: Range<usize>,
    depth: Range<usize>,
) -> Tiles {
    let row = depth.len().next_multiple_of(16) + 16;
    let copy = reserve(buffer, rows.len() * row);
    for (i, r) in rows.enumerate() {
        let at = |w: usize| (depth.start + w, copy.at(i * row + w));
        let whole = depth.len() / 16 * 16;
        for w in (0..whole).step_by(16) {
            let (word, to) = at(w);
            // SAFETY: `product` guarantees the processor; these are words of one row of a, and the copy has
            // capacity for them.
            unsafe { E::run(a.at(r, word * E::IN_A_WORD), to) };
        }
        for w in whole..depth.len() {
            let (word, to) = at(w);
            // SAFETY: as above.
            unsafe { *to = a.word(r, word) };
        }
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

/// Columns of b for a tile, at most [`COLUMNS`]: their first row, the stride from row to row and how many they are.
/// A kernel that copies writes them as a panel to `copy`, and prefetches `fetched` words of each row.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    data: *const f32,
    row: usize,
    width: usize,
    copy: *mut f32,
    fetched: usize,
}

/// Rows of a for a tile: the first word and the strides, and those of the next tile.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    data: *const f32,
    strides: [usize; 2],
    next: *const f32,
}

/// What a tile reads from memory, and prefetches further ahead.
const CACHED: u8 = 0;
const A_IN_MEMORY: u8 = 1;
const B_IN_MEMORY: u8 = 2;
/// Nothing from memory; b where it is, and no more of its columns than there are.
const IN_PLACE: u8 = 3;

/// Arguments: the tile's destination, how it is combined with it, the factor; the rows of a; the columns of b; the
/// depth.
pub(super) type Tile = unsafe fn(Out, Then, f32, Rows, Columns, usize);

macro_rules! tiles {
    ($tile:ident $reads:ident $($height:literal)*) => { [$($tile::<$height, $reads> as Tile),*] };
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
        /// must have `HEIGHT` rows of `depth` words, b `depth` rows of [`COLUMNS`] words, or in place of the tile's width, and if
        /// it is copied the copy as many, on cache lines.
        #[target_feature(enable = $features)]
        unsafe fn $name<const HEIGHT: usize, const READS: u8>(
            out: Out,
            then: Then,
            scale: f32,
            rows: Rows,
            columns: Columns,
            depth: usize,
        ) {
            let Rows {
                data: a,
                strides,
                mut next,
            } = rows;
            let Columns {
                data: mut b,
                row: b_row,
                width,
                mut copy,
                fetched,
            } = columns;
            // A constant where it can be one, which leaves a register for the loop.
            let b_row = match READS {
                B_IN_MEMORY | IN_PLACE => b_row,
                _ => COLUMNS,
            };
            let masks = [width.min(16), width.saturating_sub(16)]
                .map(|columns| ((1u32 << columns) - 1) as __mmask16);
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
                if READS != IN_PLACE {
                    // Each product of a transposed a reads entries of one row, and rows are too far apart for the
                    // hardware prefetcher. Prefetching past the end has no effect.
                    let ahead = match READS {
                        A_IN_MEMORY => next,
                        _ => {
                            rows[0].wrapping_add(entry.wrapping_add(AHEAD.wrapping_mul(strides[1])))
                        }
                    };
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(ROWS - 1).cast());
                    let b_ahead = b.wrapping_add(PANEL_AHEAD.wrapping_mul(b_row));
                    _mm_prefetch::<_MM_HINT_T0>(b_ahead.cast());
                    _mm_prefetch::<_MM_HINT_T0>(b_ahead.wrapping_add(16).cast());
                }
                if READS == A_IN_MEMORY {
                    next = next.wrapping_add(ROWS);
                }
                if READS == B_IN_MEMORY {
                    let ahead = b.wrapping_add(MEMORY_AHEAD.wrapping_mul(b_row));
                    for line in (0..fetched).step_by(16) {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line).cast());
                    }
                }
                // SAFETY: a row of b, and of its copy, and an entry of each row of a.
                unsafe {
                    let columns = match READS {
                        IN_PLACE => [
                            _mm512_maskz_loadu_ps(masks[0], b),
                            _mm512_maskz_loadu_ps(masks[1], b.wrapping_add(16)),
                        ],
                        _ => [_mm512_loadu_ps(b), _mm512_loadu_ps(b.wrapping_add(16))],
                    };
                    if READS == B_IN_MEMORY {
                        _mm512_store_ps(copy, columns[0]);
                        _mm512_store_ps(copy.wrapping_add(16), columns[1]);
                        copy = copy.wrapping_add(COLUMNS);
                    }
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let a = _mm512_broadcastss_ps(_mm_load_ss(row.wrapping_add(entry)));
                        for (sum, b) in sums.iter_mut().zip(columns) {
                            let ($a, $b, $sum) = (a, b, *sum);
                            *sum = $more;
                        }
                    }
                }
                entry = entry.wrapping_add(strides[1]);
                b = b.wrapping_add(b_row);
            }
            let scale = _mm512_set1_ps(scale);
            for (half, mask) in masks.into_iter().enumerate() {
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
