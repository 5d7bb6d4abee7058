//! Vectorised loops, with the instruction set selected at run time.
//!
//! The target is generic x86-64, whose vectors hold four floats and which has no fused multiply-add. [`vectorised`]
//! compiles a loop nest again for AVX2 with FMA and for AVX-512, and selects at run time. All compilations give
//! bitwise identical results: multiply-adds are fused where the source says so (`f32::mul_add`; without the
//! instruction that is a slow function) and nowhere else.

/// Defines a function that runs with the widest vectors that the processor has.
///
/// Its body must call only functions that are inlined; others stay compiled for the baseline.
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $(<$(const $constant:ident: $kind:ty),*>)? ($($argument:ident: $type:ty),* $(,)?) $body:block
    )*) => {$(
        $(#[$attribute])*
        $visibility fn $name $(<$(const $constant: $kind),*>)? ($($argument: $type),*) {
            #[inline(always)]
            fn body $(<$(const $constant: $kind),*>)? ($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn widest $(<$(const $constant: $kind),*>)? ($($argument: $type),*) {
                    body $(::<$($constant),*>)? ($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn wide $(<$(const $constant: $kind),*>)? ($($argument: $type),*) {
                    body $(::<$($constant),*>)? ($($argument),*)
                }
                if $crate::kernel::simd::has_avx512() {
                    // SAFETY: the processor has the features that `widest` is compiled for.
                    return unsafe { widest $(::<$($constant),*>)? ($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features that `wide` is compiled for.
                    return unsafe { wide $(::<$($constant),*>)? ($($argument),*) };
                }
            }
            body $(::<$($constant),*>)? ($($argument),*)
        }
    )*};
}
pub(crate) use vectorised;

/// Whether the processor has the parts of AVX-512 that this crate is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma")
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
