//! Products of bf16 by the tile units of Intel's AMX (TDPBF16PS), with sums in f32.
//!
//! A tile register holds 16 rows of 64 bytes. `tdpbf16ps c, a, b` adds the product of a 16 x 32 tile of a and a
//! 32 x 16 tile of b to a 16 x 16 tile of f32 sums: 16384 floating-point operations by one instruction. A tile
//! of a holds its rows as they are; a tile of b holds pairs that are consecutive in k, as the panels of
//! [`packed`](super::packed) do.
//!
//! Both operands are copied into blocks of 32 rows or columns, in the order in which the innermost loop reads
//! them. That loop loads two tiles of each and accumulates 2 x 2 tiles of the result. Sums are taken in the
//! order of k, so results do not depend on the number of threads. As the instruction defines it, subnormal
//! numbers count as zero.
//!
//! The operating system saves tiles only for processes that ask for them; [`is_available`] asks.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use burn::tensor::bf16;

use super::packed::{
    COLUMNS, COPY_OF_A, COPY_OF_B, Out, Panels, each, even_part, reserve, transpose,
};
use super::{Then, Threads, View};

/// Rows and columns of a block of the result: 2 x 2 tiles.
const BLOCK: usize = 32;
/// Words along k of a tile.
const STEP: usize = 16;
/// The maximum number of words that are multiplied before the sum is written to memory.
pub(super) const DEPTH: usize = 1024;
/// The maximum number of words of one operand that are copied at a time: 2 MiB, for the L2 cache.
const COPIED: usize = 1 << 19;
/// The maximum number of blocks of rows that a thread computes at a time.
const GROUP: usize = 8;

/// Products with fewer multiplications run on one thread.
const WORTH_A_THREAD: usize = 1 << 21;

/// Whether this processor multiplies tiles of bf16, and the operating system lets this process use them.
pub(in super::super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        vectors && has_tiles() && may_use_tiles()
    })
}

/// AMX-TILE and AMX-BF16 (Intel's manual, volume 2, CPUID, leaf 7), with both parts of their state enabled by
/// the operating system (volume 1, 13.3, XCR0).
fn has_tiles() -> bool {
    const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
    const STATE: u32 = 1 << 17 | 1 << 18;
    if __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
        return false;
    }
    let enabled: u32;
    // SAFETY: processors with AVX-512, which the caller checked, have the instruction; it only reads.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack));
    }
    enabled & STATE == STATE
}

/// Asks Linux for the tiles, `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`, on behalf of all threads of
/// the process (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    let answer: i64;
    // SAFETY: the call reads and writes no memory of the process. A system call changes rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") 0x1023, in("rsi") 18,
            out("rcx") _, out("r11") _, options(nostack));
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

/// Whether [`product`] is faster than the alternative, on a processor that has the instructions.
pub(super) fn pays(a: View<bf16>, b: View<bf16>) -> bool {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    m >= 8 && n >= 16 && k >= 16
}

/// Types of a result.
pub(crate) trait Sum: Copy {
    /// Writes or adds 16 sums, those that the mask selects.
    ///
    /// # Safety
    ///
    /// [`is_available`] must have returned true; the selected entries must be writable, and readable if they
    /// are added to.
    unsafe fn put(to: *mut Self, selected: u16, then: Then, sums: __m512);
}

impl Sum for f32 {
    #[target_feature(enable = "avx512f")]
    unsafe fn put(to: *mut Self, selected: u16, then: Then, sums: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let sums = match then {
                Then::Replace => sums,
                Then::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(selected, to), sums),
            };
            _mm512_mask_storeu_ps(to, selected, sums);
        }
    }
}

/// Rounded to nearest even, once: k must not be longer than two times [`DEPTH`].
impl Sum for bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn put(to: *mut Self, selected: u16, then: Then, sums: __m512) {
        debug_assert!(then == Then::Replace, "sums are rounded once");
        // SAFETY: guaranteed by the caller; both types are 256 bits wide.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(sums));
            _mm256_mask_storeu_epi16(to.cast(), selected, rounded);
        }
    }
}

/// `out = scale a b`, or `out += scale a b`.
///
/// # Safety
///
/// [`is_available`] must have returned true, and k must not be 0. The rows of a matrix of a's height and b's
/// width at `out` must be writable, and with [`Then::Add`] readable; they must not overlap each other, nor a or
/// b.
pub(super) unsafe fn product<S: Sum>(
    out: Out<S>,
    then: Then,
    scale: f32,
    a: View<bf16>,
    b: View<bf16>,
    threads: Threads,
) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let threads = match m * n * k < WORTH_A_THREAD {
        true => Threads::Caller,
        false => threads,
    };
    // Both operands with rows along k.
    let b = b.transposed();
    let words = k.div_ceil(2);
    let depth = even_part(words, DEPTH).next_multiple_of(STEP);
    let copied = |length: usize| even_part(length, COPIED / depth).next_multiple_of(BLOCK);
    let (rows, columns) = (copied(m), copied(n));
    let (mut a_buffer, mut b_buffer) = (COPY_OF_A.take(), COPY_OF_B.take());
    let (strips, panels) = (
        reserve(&mut a_buffer, depth * rows),
        reserve(&mut b_buffer, depth * columns),
    );
    for p in (0..words).step_by(depth) {
        let then = if p > 0 { Then::Add } else { then };
        let depth = p..(p + depth).min(words);
        for r in (0..m).step_by(rows) {
            let strips = Strips {
                data: strips,
                depth: depth.clone(),
                rows: r..(r + rows).min(m),
            };
            for c in (0..n).step_by(columns) {
                let panels = Panels {
                    data: panels,
                    depth: depth.clone(),
                    rows: strips.words(),
                    columns: c..(c + columns).min(n),
                };
                // A copy of all columns serves all rows.
                let of_a = if c == 0 { strips.count() } else { 0 };
                let of_b = if r == 0 || columns < n {
                    panels.parts(b)
                } else {
                    0
                };
                each(of_a + of_b, threads, |i| match i.checked_sub(of_a) {
                    // SAFETY: the caller guarantees the processor.
                    None => unsafe { strips.fill(a, i) },
                    Some(i) => panels.fill(b, i),
                });
                // SAFETY: guaranteed by the caller.
                unsafe { multiply(out, then, scale, &strips, &panels, threads) };
            }
        }
    }
    COPY_OF_A.set(a_buffer);
    COPY_OF_B.set(b_buffer);
}

/// A part of a as strips of [`BLOCK`] rows, padded with zeros. A strip holds, for each [`STEP`] words along k, a
/// tile of its upper and one of its lower rows.
struct Strips {
    data: Out,
    /// In words.
    depth: Range<usize>,
    rows: Range<usize>,
}

impl Strips {
    fn count(&self) -> usize {
        self.rows.len().div_ceil(BLOCK)
    }

    /// The words of a row, with padding.
    fn words(&self) -> usize {
        self.depth.len().next_multiple_of(STEP)
    }

    /// The number of rows of a strip that are not padding.
    fn height(&self, strip: usize) -> usize {
        BLOCK.min(self.rows.len() - strip * BLOCK)
    }

    fn at(&self, strip: usize) -> *mut f32 {
        self.data.at(strip * BLOCK * self.words())
    }

    /// Copies a strip.
    ///
    /// # Safety
    ///
    /// The processor must have AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn fill(&self, a: View<bf16>, strip: usize) {
        let in_words = a.in_words().filter(|words| words.strides[1] == 1);
        let mut turned = Tile([[0.0; STEP]; 16]);
        for step in 0..self.words() / STEP {
            let word = self.depth.start + step * STEP;
            let words = STEP.min(self.depth.end - word);
            if in_words.is_none() {
                // Each word comes from other rows of memory, too far apart for the hardware prefetcher.
                let row = self.rows.start + strip * BLOCK;
                for k in 2 * (word + STEP)..2 * (word + 2 * STEP) {
                    _mm_prefetch::<_MM_HINT_T0>(a.at(row, k).cast());
                }
            }
            for half in [0, 1] {
                let row = self.rows.start + strip * BLOCK + 16 * half;
                let tile = self.at(strip).wrapping_add((2 * step + half) * 16 * STEP);
                match in_words {
                    Some(a) if words == STEP && row + 16 <= self.rows.end => {
                        for i in 0..16 {
                            let to = tile.wrapping_add(i * STEP);
                            // SAFETY: words of a row of a, and a row of the tile.
                            unsafe { _mm512_store_ps(to, _mm512_loadu_ps(a.at(row + i, word))) };
                        }
                    }
                    _ => {
                        turned.0[words..].fill([0.0; STEP]);
                        for (i, to) in turned.0[..words].iter_mut().enumerate() {
                            // SAFETY: the caller guarantees the processor; 16 words are writable.
                            unsafe { a.pack(row, word + i, to.as_mut_ptr()) };
                        }
                        // SAFETY: as above; the tile's rows are as long as cache lines and start on them.
                        unsafe { transpose(turned.0.as_ptr().cast(), STEP, tile, STEP) };
                    }
                }
            }
        }
    }
}

#[repr(C, align(64))]
struct Tile([[f32; STEP]; 16]);

/// Multiplies all strips with all panels.
///
/// # Safety
///
/// The same as for [`product`], for these rows and columns; strips and panels must be filled.
unsafe fn multiply<S: Sum>(
    out: Out<S>,
    then: Then,
    scale: f32,
    a: &Strips,
    b: &Panels,
    threads: Threads,
) {
    let group = match threads {
        Threads::Caller => GROUP,
        Threads::All => (a.count() / (4 * rayon::current_num_threads())).clamp(1, GROUP),
    };
    each(a.count().div_ceil(group), threads, |i| {
        let strips = i * group..((i + 1) * group).min(a.count());
        // SAFETY: the caller guarantees the processor and the operating system's permission. Nothing here
        // leaves the thread between the configuration of its tiles and their release.
        unsafe { configure_tiles() };
        for strip in strips {
            for panel in 0..b.count() {
                let mut sums = MaybeUninit::uninit();
                let first = a.rows.start + strip * BLOCK;
                let to = out.at(first * out.row + b.columns.start + panel * COLUMNS);
                // SAFETY: strip and panel hold this many steps, which write all sums. The caller guarantees the
                // entries at `out`; different blocks are different entries.
                unsafe {
                    multiply_block(a.at(strip), b.at(panel, 0), a.words() / STEP, &mut sums);
                    let to = Out { data: to, ..out };
                    let sums = sums.assume_init_ref();
                    put_block(to, then, scale, sums, a.height(strip), b.width(panel));
                }
            }
        }
        // SAFETY: no tile is in use.
        unsafe { asm!("tilerelease", options(nostack)) };
    });
}

/// Makes every tile register 16 rows of 64 bytes.
///
/// # Safety
///
/// [`is_available`] must have returned true.
unsafe fn configure_tiles() {
    /// The operand of LDTILECFG: the palette, the row to start at, 14 reserved bytes, then for each of 16
    /// registers the bytes of a row (16 bits each) and the number of rows (8 bits each).
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    const TILES: Configuration = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut register = 0;
        while register < 8 {
            bytes[16 + 2 * register] = 64;
            bytes[48 + register] = 16;
            register += 1;
        }
        Configuration(bytes)
    };
    // SAFETY: guaranteed by the caller; the configuration is valid for palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &TILES, options(readonly, nostack)) };
}

/// The entries of a block of the result.
#[repr(C, align(64))]
struct Sums([[f32; BLOCK]; BLOCK]);

/// `sums = a b` for a strip and a panel of `steps` times [`STEP`] words.
///
/// The loop is one `asm!` block, because the tile registers keep the sums between its iterations, and the
/// compiler does not know of them.
///
/// # Safety
///
/// The tiles must be configured; strip and panel must be readable, and there must be at least one step.
#[inline(always)]
unsafe fn multiply_block(a: *const f32, b: *const f32, steps: usize, sums: &mut MaybeUninit<Sums>) {
    // SAFETY: guaranteed by the caller. A tile of a takes 1024 bytes, two rows of 64 bytes apart; rows of a panel
    // and of the sums are 128 bytes apart.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tileloadd tmm7, [{b} + {b_row} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {a_row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {b_row}], tmm0",
            "tilestored [{sums} + {b_row} + 64], tmm1",
            "tilestored [{sums} + {b_row} + 2048], tmm2",
            "tilestored [{sums} + {b_row} + 2112], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            a_row = in(reg) 64usize,
            b_row = in(reg) 128usize,
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Writes the entries of a block that are not padding.
///
/// # Safety
///
/// The same as for [`product`], for these entries.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn put_block<S: Sum>(
    out: Out<S>,
    then: Then,
    scale: f32,
    sums: &Sums,
    height: usize,
    width: usize,
) {
    let scale = _mm512_set1_ps(scale);
    for (r, sums) in sums.0[..height].iter().enumerate() {
        for (half, columns) in [(0, width.min(16)), (1, width.saturating_sub(16))] {
            let selected = ((1u32 << columns) - 1) as u16;
            let to = out.at(r * out.row + 16 * half);
            // SAFETY: 16 sums; the caller guarantees the entries that the mask selects.
            unsafe {
                let sums = _mm512_loadu_ps(sums[16 * half..].as_ptr());
                S::put(to, selected, then, _mm512_mul_ps(scale, sums));
            }
        }
    }
}
