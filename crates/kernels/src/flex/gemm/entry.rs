//! Types of entries, and how products of each are computed on this processor.

use burn::tensor::{Element, bf16, f16};

use super::{View, product};
use crate::flex::Primitive;
use crate::flex::buffer::{block_of_rows, for_blocks, nth_block};
use crate::flex::halves::{
    Floats, in_bf16, in_f16, round_to_bf16, round_to_f16, widen_bf16, widen_f16,
};

#[cfg(target_arch = "x86_64")]
use super::{
    Then, Threads, amx, avx512,
    avx512::Factor,
    packed::{Out, Widened},
    written,
};
#[cfg(target_arch = "x86_64")]
use crate::flex::products::Products;

/// Entry types that can be multiplied.
pub(crate) trait Entry: Element + Copy + Default + Send + Sync + 'static {
    /// The memory of a tensor of this type, from its first entry on.
    fn memory(x: &Primitive) -> &[Self];

    /// Calls `f` with the same values in f32.
    fn with_f32<R>(x: &[Self], f: impl FnOnce(&[f32]) -> R) -> R;

    /// The values in f32: themselves, or written to the buffer.
    fn read<'a>(x: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
        Self::widen(x, buffer);
        buffer
    }

    /// The values in f32, written to as many entries.
    fn widen(x: &[Self], to: &mut [f32]);

    /// The values rounded to this type: themselves, or written to the buffer.
    fn rounded<'a>(x: &'a [f32], buffer: &'a mut Vec<Self>) -> &'a [Self];

    /// Writes the values, rounded to this type, to as many entries.
    fn write(x: &[f32], to: &mut [Self]);

    /// `a b` rounded to this type, in row-major order.
    fn product(a: View<Self>, b: View<Self>) -> Vec<Self>;

    /// Computes the product if there is a kernel that reads this type, without widening the operands first.
    ///
    /// # Safety
    ///
    /// The same as for [`gemm_to`]. The shapes must match, and none is 0.
    #[cfg(target_arch = "x86_64")]
    unsafe fn try_halves(
        _out: Out,
        _then: Then,
        _scale: f32,
        _a: View<Self>,
        _b: View<Self>,
        _threads: Threads,
    ) -> bool {
        false
    }
}

impl Entry for f32 {
    fn memory(x: &Primitive) -> &[Self] {
        &x.storage()[x.layout().start_offset()..]
    }

    fn with_f32<R>(x: &[Self], f: impl FnOnce(&[f32]) -> R) -> R {
        f(x)
    }

    fn read<'a>(x: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        x
    }

    fn widen(x: &[Self], to: &mut [f32]) {
        to.copy_from_slice(x);
    }

    fn rounded<'a>(x: &'a [f32], _: &'a mut Vec<Self>) -> &'a [Self] {
        x
    }

    fn write(x: &[f32], to: &mut [Self]) {
        to.copy_from_slice(x);
    }

    fn product(a: View, b: View) -> Vec<f32> {
        product(1.0, a, b)
    }
}

impl Entry for bf16 {
    fn memory(x: &Primitive) -> &[Self] {
        &x.storage()[x.layout().start_offset()..]
    }

    fn with_f32<R>(x: &[Self], f: impl FnOnce(&[f32]) -> R) -> R {
        f(&Floats::Bf16(x).wide())
    }

    fn widen(x: &[Self], to: &mut [f32]) {
        widen_bf16(x, to);
    }

    fn rounded<'a>(x: &'a [f32], buffer: &'a mut Vec<Self>) -> &'a [Self] {
        rounded_by_blocks(x, buffer, round_to_bf16)
    }

    fn write(x: &[f32], to: &mut [Self]) {
        round_to_bf16(x, to);
    }

    fn product(a: View<Self>, b: View<Self>) -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let (wide_a, wide_b) = (Widened::of(a), Widened::of(b));
            // SAFETY: these products are in use only where they are available, and write all entries if they pay.
            unsafe {
                match Products::in_use() {
                    Products::Amx if a.shape[1] <= 2 * amx::DEPTH && amx::pays(a, b) => {
                        return written(a, b, |to| {
                            amx::product(to, Then::Replace, 1.0, a, b, Threads::All);
                        });
                    }
                    Products::Avx512Bf16 if avx512::can_round(a, b) => {
                        return written(a, b, |to| avx512::rounded_product(to, a, b));
                    }
                    Products::Avx512 if avx512::can_round(wide_a, wide_b) => {
                        return written(a, b, |to| avx512::rounded_product(to, wide_a, wide_b));
                    }
                    _ => {}
                }
            }
        }
        in_bf16(&product(1.0, a, b))
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn try_halves(
        out: Out,
        then: Then,
        scale: f32,
        a: View<Self>,
        b: View<Self>,
        threads: Threads,
    ) -> bool {
        // SAFETY: these products are in use only on processors that have the instructions; the caller
        // guarantees the rest.
        unsafe {
            match Products::in_use() {
                Products::Amx if amx::pays(a, b) => {
                    amx::product(out, then, scale, a, b, threads);
                }
                Products::Avx512Bf16 if bf16::pays(a, b, threads) => {
                    avx512::product(out, then, scale, a, b, threads);
                }
                Products::Avx512 if Widened::pays(Widened::of(a), Widened::of(b), threads) => {
                    let (a, b) = (Widened::of(a), Widened::of(b));
                    avx512::product(out, then, scale, a, b, threads);
                }
                _ => return false,
            }
        }
        true
    }
}

impl Entry for f16 {
    fn memory(x: &Primitive) -> &[Self] {
        &x.storage()[x.layout().start_offset()..]
    }

    fn with_f32<R>(x: &[Self], f: impl FnOnce(&[f32]) -> R) -> R {
        f(&Floats::F16(x).wide())
    }

    fn widen(x: &[Self], to: &mut [f32]) {
        widen_f16(x, to);
    }

    fn rounded<'a>(x: &'a [f32], buffer: &'a mut Vec<Self>) -> &'a [Self] {
        rounded_by_blocks(x, buffer, round_to_f16)
    }

    fn write(x: &[f32], to: &mut [Self]) {
        round_to_f16(x, to);
    }

    fn product(a: View<Self>, b: View<Self>) -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        if Products::in_use() >= Products::Avx512 && avx512::can_round(a, b) {
            // SAFETY: these products are in use only where they are available, and write all entries.
            return unsafe { written(a, b, |to| avx512::rounded_product(to, a, b)) };
        }
        in_f16(&product(1.0, a, b))
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn try_halves(
        out: Out,
        then: Then,
        scale: f32,
        a: View<Self>,
        b: View<Self>,
        threads: Threads,
    ) -> bool {
        let served = Products::in_use() >= Products::Avx512 && Self::pays(a, b, threads);
        if served {
            // SAFETY: these products are in use only on processors that have the instructions; the caller
            // guarantees the rest.
            unsafe { avx512::product(out, then, scale, a, b, threads) };
        }
        served
    }
}

/// The values in the buffer, rounded by `round`, in parallel if they are many.
fn rounded_by_blocks<'a, T: Clone + Default + Send>(
    x: &[f32],
    buffer: &'a mut Vec<T>,
    round: impl Fn(&[f32], &mut [T]) + Sync,
) -> &'a [T] {
    buffer.resize(x.len(), T::default());
    let block = block_of_rows(1);
    for_blocks(buffer, block, |i, part| {
        round(nth_block(x, i, block), part);
    });
    buffer
}
