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
                match $crate::kernel::simd::Width::best() {
                    // SAFETY: the processor has the features that `widest` is compiled for.
                    $crate::kernel::simd::Width::Avx512 => return unsafe {
                        widest $(::<$($constant),*>)? ($($argument),*)
                    },
                    // SAFETY: the processor has the features that `wide` is compiled for.
                    $crate::kernel::simd::Width::Avx2 => return unsafe {
                        wide $(::<$($constant),*>)? ($($argument),*)
                    },
                    $crate::kernel::simd::Width::Baseline => {}
                }
            }
            body $(::<$($constant),*>)? ($($argument),*)
        }
    )*};
}
pub(crate) use vectorised;

/// Vectors that the processor has.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Width {
    /// Those of every x86-64.
    Baseline,
    /// AVX2 with FMA.
    Avx2,
    /// The parts of AVX-512 that this crate is compiled for.
    Avx512,
}

#[cfg(target_arch = "x86_64")]
impl Width {
    #[inline]
    pub(crate) fn best() -> Self {
        let fma = is_x86_feature_detected!("fma");
        let best = if fma
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            Self::Avx512
        } else if fma && is_x86_feature_detected!("avx2") {
            Self::Avx2
        } else {
            Self::Baseline
        };
        #[cfg(test)]
        let best = best.min(*LIMIT.read().expect("no test panics while it writes"));
        best
    }
}

/// The widest vectors that tests use. Results are the same with all, so other tests do not notice.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) static LIMIT: std::sync::RwLock<Width> = std::sync::RwLock::new(Width::Avx512);

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
