//! Weights of f16, widened by the processor's own conversion: what the compiler makes of a conversion by integer
//! operations takes longer than reading the weights from memory.

use std::cell::Cell;

use burn::tensor::f16;

use super::{AHEAD, AT_ONCE, LINE, Weight};
use crate::flex::halves::widen_f16;
use crate::flex::simd::prefetch;

const IN_A_LINE: usize = LINE / size_of::<f16>();

impl Weight for f16 {
    fn add_product(sum: &mut [f32], x: &[f32], w: &[Self]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512::add_product(sum, x, w) };
        }
        for (x, w) in x.chunks(AT_ONCE).zip(w.chunks(AT_ONCE * sum.len())) {
            with_widened(w, |w| f32::add_product(sum, x, w));
        }
    }

    fn add_streamed_product(sum: &mut [f32], x: &[f32], w: &[Self]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512::add_streamed_product(sum, x, w) };
        }
        for (x, w) in x.chunks(1).zip(w.chunks_exact(sum.len())) {
            with_widened(w, |w| f32::add_product(sum, x, w));
        }
    }

    fn dots(out: &mut [f32], x: &[f32], w: &[Self]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512::dots(out, x, w) };
        }
        for (y, w) in out.chunks_mut(1).zip(w.chunks_exact(x.len())) {
            with_widened(w, |w| f32::dots_with(y, x, w));
        }
    }

    fn dots_with(out: &mut [f32], x: &[f32], w: &[Self]) {
        with_widened(w, |w| f32::dots_with(out, x, w));
    }
}

thread_local! {
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with the weights in f32, in a buffer of the thread.
fn with_widened(w: &[f16], f: impl FnOnce(&[f32])) {
    let mut buffer = WIDENED.take();
    buffer.resize(w.len().max(buffer.len()), 0.0);
    let widened = &mut buffer[..w.len()];
    for (w, widened) in w
        .chunks(8 * IN_A_LINE)
        .zip(widened.chunks_mut(8 * IN_A_LINE))
    {
        for line in w.chunks(IN_A_LINE) {
            prefetch(line.as_ptr().wrapping_byte_add(AHEAD));
        }
        widen_f16(w, widened);
    }
    f(widened);
    WIDENED.set(buffer);
}

/// The same with the conversion in registers.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{AHEAD, AT_ONCE, IN_A_LINE, f16, prefetch};
    use crate::flex::simd::sum2;

    #[target_feature(enable = "avx512f")]
    pub(super) fn add_product(sum: &mut [f32], x: &[f32], w: &[f16]) {
        let n = sum.len();
        for (x, w) in x.chunks(AT_ONCE).zip(w.chunks(AT_ONCE * n)) {
            for line in w.chunks(IN_A_LINE) {
                prefetch(line.as_ptr().wrapping_byte_add(AHEAD));
            }
            let (sums, tail) = sum.as_chunks_mut::<16>();
            for (j, s) in sums.iter_mut().enumerate() {
                // SAFETY: 16 values each.
                unsafe {
                    let mut sum = _mm512_loadu_ps(s.as_ptr());
                    for (&x, w) in x.iter().zip(w.chunks_exact(n)) {
                        let w = &w[16 * j..][..16];
                        let w = _mm512_cvtph_ps(_mm256_loadu_si256(w.as_ptr().cast()));
                        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_set1_ps(x), w));
                    }
                    _mm512_storeu_ps(s.as_mut_ptr(), sum);
                }
            }
            for (&x, w) in x.iter().zip(w.chunks_exact(n)) {
                for (s, w) in tail.iter_mut().zip(&w[n - n % 16..]) {
                    *s += x * w.to_f32();
                }
            }
        }
    }

    /// The two halves of a line.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn wide(w: &[f16; IN_A_LINE]) -> [__m512; 2] {
        prefetch(w.as_ptr().wrapping_byte_add(AHEAD));
        // SAFETY: 16 values from each half of the line.
        [0, 16].map(|at| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(w[at..].as_ptr().cast())) })
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn add_streamed_product(sum: &mut [f32], x: &[f32], w: &[f16]) {
        for (&x, w) in x.iter().zip(w.chunks_exact(sum.len())) {
            let (lines, w_tail) = w.as_chunks::<IN_A_LINE>();
            let (sums, tail) = sum.as_chunks_mut::<IN_A_LINE>();
            let factor = _mm512_set1_ps(x);
            for (s, w) in sums.iter_mut().zip(lines) {
                let (halves, _) = s.as_chunks_mut::<16>();
                for (s, w) in halves.iter_mut().zip(wide(w)) {
                    // SAFETY: 16 values.
                    unsafe {
                        let before = _mm512_loadu_ps(s.as_ptr());
                        let sum = _mm512_add_ps(before, _mm512_mul_ps(factor, w));
                        _mm512_storeu_ps(s.as_mut_ptr(), sum);
                    }
                }
            }
            for (s, w) in tail.iter_mut().zip(w_tail) {
                *s += x * w.to_f32();
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn dots(out: &mut [f32], x: &[f32], w: &[f16]) {
        let (x_lines, x_tail) = x.as_chunks::<IN_A_LINE>();
        for (y, w) in out.iter_mut().zip(w.chunks_exact(x.len())) {
            let (lines, w_tail) = w.as_chunks::<IN_A_LINE>();
            let mut parts = [_mm512_setzero_ps(); 2];
            for (x, w) in x_lines.iter().zip(lines) {
                let (x, _) = x.as_chunks::<16>();
                for ((part, x), w) in parts.iter_mut().zip(x).zip(wide(w)) {
                    // SAFETY: 16 values.
                    let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
                    *part = _mm512_add_ps(*part, _mm512_mul_ps(x, w));
                }
            }
            let sum = _mm512_reduce_add_ps(_mm512_add_ps(parts[0], parts[1]));
            *y = sum + sum2(x_tail, w_tail, |x, w| x * w.to_f32());
        }
    }
}
