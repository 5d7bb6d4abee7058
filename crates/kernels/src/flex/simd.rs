//! Vectorised loops, with the instruction set selected at run time.
//!
//! The target is generic x86-64, whose vectors hold four floats. [`vectorised`] compiles a loop nest again for
//! AVX2, whose vectors hold eight, and for AVX-512, and selects at run time. The loops use no intrinsics: they
//! iterate over slices, split into fixed-width chunks where a reduction needs independent sums. Multiply-adds
//! are not fused, so all compilations give bitwise identical results.

/// Defines a function that runs with the widest vectors that the processor has.
///
/// Its body must call only functions that are inlined; others stay compiled for the baseline.
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    )*) => {$(
        $(#[$attribute])*
        pub(crate) fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn widest($($argument: $type),*) $(-> $output)? {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $type),*) $(-> $output)? {
                    body($($argument),*)
                }
                if $crate::flex::simd::has_avx512() {
                    // SAFETY: the processor has the features that `widest` is compiled for.
                    return unsafe { widest($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature that `wide` is compiled for.
                    return unsafe { wide($($argument),*) };
                }
            }
            body($($argument),*)
        }
    )*};
}
pub(crate) use vectorised;

/// Whether the processor has the parts of AVX-512 that the compiler needs for loops over any type.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Fetches the cache line of an address, of which it need not be known whether it is readable.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: all processors of this architecture have the instruction, which has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Independent partial results of a reduction: four AVX2 registers, enough to hide the latency of
/// an addition.
const LANES: usize = 32;

/// Combines `f(x)` over a slice; `unit` is neutral for `combine`.
#[inline(always)]
pub(crate) fn reduce(
    x: &[f32],
    unit: f32,
    f: impl Fn(f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut parts = [unit; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            parts[l] = combine(parts[l], f(chunk[l]));
        }
    }
    for (part, &x) in parts.iter_mut().zip(tail) {
        *part = combine(*part, f(x));
    }
    fold(parts, combine)
}

/// `sum f(x, y)`.
#[inline(always)]
pub(crate) fn sum2<Y: Copy>(x: &[f32], y: &[Y], f: impl Fn(f32, Y) -> f32) -> f32 {
    let mut parts = [0.0; LANES];
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for l in 0..LANES {
            parts[l] += f(x[l], y[l]);
        }
    }
    for ((part, &x), &y) in parts.iter_mut().zip(x_tail).zip(y_tail) {
        *part += f(x, y);
    }
    fold(parts, |a, b| a + b)
}

/// `sum f(x, y, z)`.
#[inline(always)]
pub(crate) fn sum3(x: &[f32], y: &[f32], z: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut parts = [0.0; LANES];
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (ys, y_tail) = y.as_chunks::<LANES>();
    let (zs, z_tail) = z.as_chunks::<LANES>();
    for ((x, y), z) in xs.iter().zip(ys).zip(zs) {
        for l in 0..LANES {
            parts[l] += f(x[l], y[l], z[l]);
        }
    }
    for (((part, &x), &y), &z) in parts.iter_mut().zip(x_tail).zip(y_tail).zip(z_tail) {
        *part += f(x, y, z);
    }
    fold(parts, |a, b| a + b)
}

/// Replaces every `x` by `f(x)` and returns their sum.
#[inline(always)]
pub(crate) fn map_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = f(chunk[l]);
            parts[l] += chunk[l];
        }
    }
    for (part, x) in parts.iter_mut().zip(tail) {
        *x = f(*x);
        *part += *x;
    }
    fold(parts, |a, b| a + b)
}

#[inline(always)]
fn fold(mut parts: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            parts[l] = combine(parts[l], parts[l + half]);
        }
        half /= 2;
    }
    parts[0]
}

/// The larger of two values, as one instruction: `f32::max` also handles NaN.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn total(x: &[f32]) -> f32 {
            reduce(x, 0.0, |x| x, |a, b| a + b)
        }

        fn largest(x: &[f32]) -> f32 {
            reduce(x, f32::NEG_INFINITY, |x| x, larger)
        }

        fn dots(x: &[f32], y: &[f32]) -> (f32, f32) {
            (sum2(x, y, |x, y| x * y), sum3(x, y, y, |x, y, z| x * y * z))
        }
    }

    #[test]
    fn tails_are_included() {
        for n in [0, 1, 3, 31, 32, 33, 65, 130] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let ones = vec![1.0; n];
            let sum = (n * (n + 1) / 2) as f32;
            assert_eq!(total(&x), sum);
            assert_eq!(dots(&x, &ones), (sum, sum));
            let backwards: Vec<f32> = x.iter().rev().copied().collect();
            let expected = if n == 0 { f32::NEG_INFINITY } else { n as f32 };
            assert_eq!(largest(&x), expected);
            assert_eq!(largest(&backwards), expected);
        }
    }
}
