//! Matrix products on strided views of slices. Views are checked once, so that the kernels stay safe.
//!
//! The gemm crate computes them, except on processors with AVX-512: there large products of f32, and products
//! of bf16, are computed by [`avx512`] and [`amx`]. [`Products`] says by which.

use std::ops::Range;

#[cfg(any(test, target_arch = "x86_64"))]
use super::products::Products;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod entry;
#[cfg(target_arch = "x86_64")]
mod low;
#[cfg(target_arch = "x86_64")]
mod packed;
mod turned;

pub(crate) use entry::Entry;
pub(crate) use turned::Turned;
#[cfg(target_arch = "x86_64")]
use {avx512::Factor, packed::Out};

/// A matrix to read: entry (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T = f32> {
    data: &'a [T],
    shape: [usize; 2],
    strides: [usize; 2],
}

/// A matrix to write; no two entries overlap.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

/// One past the largest index that a view of this layout accesses.
fn extent([rows, columns]: [usize; 2], [row, column]: [usize; 2]) -> usize {
    if rows == 0 || columns == 0 {
        0
    } else {
        (rows - 1) * row + (columns - 1) * column + 1
    }
}

impl<'a, T> View<'a, T> {
    /// # Panics
    ///
    /// If an entry is outside the data.
    pub(crate) fn new(data: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let extent = extent(shape, strides);
        assert!(extent <= data.len(), "view exceeds its data");
        Self {
            data: &data[..extent],
            shape,
            strides,
        }
    }

    /// Consecutive rows.
    pub(crate) fn rows(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::new(data, [rows, columns], [columns, 1])
    }

    /// The same layout on other data of the same length.
    fn with_data<'b, U>(&self, data: &'b [U]) -> View<'b, U> {
        View::new(data, self.shape, self.strides)
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// One of the rows, which must be contiguous.
    pub(crate) fn row(&self, i: usize) -> &'a [T] {
        debug_assert_eq!(self.strides[1], 1, "rows are contiguous");
        &self.data[i * self.strides[0]..][..self.shape[1]]
    }

    /// Some of the rows.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        assert!(
            rows.end <= self.shape[0],
            "rows {rows:?} of {:?}",
            self.shape
        );
        let first = (rows.start * self.strides[0]).min(self.data.len());
        Self::new(
            &self.data[first..],
            [rows.len(), self.shape[1]],
            self.strides,
        )
    }

    pub(crate) fn transposed(&self) -> Self {
        let ([rows, columns], [row, column]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [columns, rows],
            strides: [column, row],
        }
    }
}

impl<'a> ViewMut<'a> {
    /// # Panics
    ///
    /// If an entry is outside the data or overlaps another entry.
    pub(crate) fn new(data: &'a mut [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        assert!(
            extent(shape, strides) <= data.len(),
            "view exceeds its data"
        );
        let ([rows, columns], [row, column]) = (shape, strides);
        let apart = row > 0
            && column > 0
            && (row >= extent([1, columns], strides) || column >= extent([rows, 1], strides));
        assert!(apart, "entries overlap");
        Self {
            data,
            shape,
            strides,
        }
    }

    /// Consecutive rows.
    pub(crate) fn rows(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::new(data, [rows, columns], [columns, 1])
    }
}

/// How the product is combined with the values in the destination.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Replace,
    Add,
}

/// The threads that compute the product.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Threads {
    Caller,
    All,
}

/// `out = scale a b`, or `out += scale a b`.
///
/// # Panics
///
/// If the shapes do not match.
pub(crate) fn gemm<T: Entry>(
    out: ViewMut,
    then: Then,
    scale: f32,
    a: View<T>,
    b: View<T>,
    threads: Threads,
) {
    let ViewMut {
        data,
        shape,
        strides,
    } = out;
    // SAFETY: the view's constructor checked that all entries are inside the slice and do not overlap; its
    // borrow excludes overlap with a or b.
    unsafe {
        gemm_to(
            data.as_mut_ptr(),
            shape,
            strides,
            then,
            scale,
            a,
            b,
            threads,
        )
    };
}

/// `scale a b` in row-major order, in newly allocated memory that is written once.
///
/// # Panics
///
/// If the shapes do not match.
pub(crate) fn product<T: Entry>(scale: f32, a: View<T>, b: View<T>) -> Vec<f32> {
    let shape = [a.shape[0], b.shape[1]];
    let [rows, columns] = shape;
    if a.shape[1] == 0 {
        return vec![0.0; rows * columns];
    }
    let mut out = Vec::with_capacity(rows * columns);
    let (to, strides) = (out.as_mut_ptr(), [columns, 1]);
    // SAFETY: the capacity holds the entries, one for each index below it, and the buffer is not shared. A
    // product with at least one term writes each entry without reading it, so all are initialised before the
    // length is set.
    unsafe {
        gemm_to(to, shape, strides, Then::Replace, scale, a, b, Threads::All);
        out.set_len(rows * columns);
    }
    out
}

/// A product in row-major order, in newly allocated memory.
///
/// # Safety
///
/// `write` must write all entries.
///
/// # Panics
///
/// If the shapes do not match.
#[cfg(target_arch = "x86_64")]
unsafe fn written<T>(a: View<T>, b: View<T>, write: impl FnOnce(Out<T>)) -> Vec<T> {
    let ([rows, k], [k_of_b, columns]) = (a.shape, b.shape);
    assert_eq!(k, k_of_b, "product of {:?} and {:?}", a.shape, b.shape);
    let mut out = Vec::with_capacity(rows * columns);
    write(Out {
        data: out.as_mut_ptr(),
        row: columns,
    });
    // SAFETY: the capacity holds the entries, and the caller guarantees that they are written.
    unsafe { out.set_len(rows * columns) };
    out
}

/// As [`gemm`], with the destination given as a pointer to its first entry.
///
/// # Safety
///
/// The entries of a matrix of this shape and these strides at `out` must be writable, and with [`Then::Add`]
/// readable. They must not overlap each other, nor a or b.
#[allow(
    clippy::too_many_arguments,
    reason = "the two functions above have fewer"
)]
unsafe fn gemm_to<T: Entry>(
    out: *mut f32,
    shape: [usize; 2],
    strides: [usize; 2],
    then: Then,
    scale: f32,
    a: View<T>,
    b: View<T>,
    threads: Threads,
) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    assert!(
        b.shape[0] == k && shape == [m, n],
        "product of {:?} and {:?} into {shape:?}",
        a.shape,
        b.shape,
    );
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some((out, a, b)) = by_rows(out, strides, a, b) {
        // SAFETY: guaranteed by the caller.
        if unsafe { T::try_halves(out, then, scale, a, b, threads) } {
            return;
        }
    }
    T::with_f32(a.data, |a_data| {
        T::with_f32(b.data, |b_data| {
            let (a, b) = (a.with_data(a_data), b.with_data(b_data));
            #[cfg(target_arch = "x86_64")]
            if let Some((out, a, b)) = by_rows(out, strides, a, b)
                && Products::in_use() >= Products::Avx512
            {
                // SAFETY: these products are in use only on processors that have the instructions; the caller
                // guarantees the rest.
                unsafe {
                    if avx512::reads_in_place(a, b, threads) {
                        return avx512::product_in_place(out, then, scale, a, b);
                    }
                    if f32::pays(a, b, threads) {
                        return avx512::product(out, then, scale, a, b, threads);
                    }
                }
            }
            // SAFETY: guaranteed by the caller.
            unsafe { gemm_crate(out, strides, then, scale, a, b, threads) };
        });
    });
}

/// The product as one whose destination has contiguous rows, if there are any terms: a result that is stored by
/// columns is the transpose of another product.
#[cfg(target_arch = "x86_64")]
fn by_rows<'a, T>(
    out: *mut f32,
    strides: [usize; 2],
    a: View<'a, T>,
    b: View<'a, T>,
) -> Option<(Out, View<'a, T>, View<'a, T>)> {
    let (a, b, row) = match strides[1] {
        1 => (a, b, strides[0]),
        _ => (b.transposed(), a.transposed(), strides[1]),
    };
    let contiguous = strides.contains(&1) && row >= b.shape[1] && a.shape[1] > 0;
    contiguous.then_some((Out { data: out, row }, a, b))
}

/// The gemm crate's product. The shapes must match.
///
/// # Safety
///
/// The same as for [`gemm_to`].
unsafe fn gemm_crate(
    out: *mut f32,
    strides: [usize; 2],
    then: Then,
    scale: f32,
    a: View,
    b: View,
    threads: Threads,
) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let stride = |s: usize| s as isize;
    let parallelism = match threads {
        Threads::Caller => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: `gemm` reads a and b, and writes (and with Add reads) the destination, as matrices of these
    // shapes and strides. The views' constructors checked that the entries of a and b are inside their
    // slices; the caller guarantees the destination.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            stride(strides[1]),
            stride(strides[0]),
            then == Then::Add,
            a.data.as_ptr(),
            stride(a.strides[1]),
            stride(a.strides[0]),
            b.data.as_ptr(),
            stride(b.strides[1]),
            stride(b.strides[0]),
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{bf16, f16};

    use super::*;

    /// 2 x 3 times 3 x 2, computed by hand.
    const A: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    const B: [f32; 6] = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];

    #[test]
    fn replaces_and_adds() {
        let mut out = [1.0; 4];
        let (a, b) = (View::rows(&A, 2, 3), View::rows(&B, 3, 2));
        let to = ViewMut::rows(&mut out, 2, 2);
        gemm(to, Then::Replace, 1.0, a, b, Threads::Caller);
        assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
        let to = ViewMut::rows(&mut out, 2, 2);
        gemm(to, Then::Add, 2.0, a, b, Threads::All);
        assert_eq!(out, [12.0, 15.0, 30.0, 33.0]);
    }

    #[test]
    fn all_operands_may_be_strided() {
        // The transposes of the same product, with a stride of two.
        let mut out = [9.0; 8];
        let (a, b) = (View::rows(&A, 2, 3), View::rows(&B, 3, 2));
        let to = ViewMut::new(&mut out, [2, 2], [4, 2]);
        gemm(
            to,
            Then::Replace,
            1.0,
            b.transposed(),
            a.transposed(),
            Threads::Caller,
        );
        assert_eq!(out, [4.0, 9.0, 10.0, 9.0, 5.0, 9.0, 11.0, 9.0]);
    }

    /// Selects all products that the processor has in turn, in one test, because the selection is global.
    /// (Whatever other tests compute meanwhile, they compare within tolerances.)
    #[test]
    fn large_products_equal_sums_in_f64_and_are_rounded_once() {
        let in_use = Products::in_use();
        for products in Products::available() {
            products.select();
            check::<f32>(products, |x| x, f64::from);
            check::<bf16>(products, bf16::from_f32, f64::from);
            check::<f16>(products, f16::from_f32, f64::from);
            check_rounding_of_all_shapes(products, bf16::from_f32);
            check_rounding_of_all_shapes(products, f16::from_f32);
        }
        in_use.select();
    }

    /// Every code path of a product, by all threads and by the caller, against sums in f64. Results of all threads are bitwise
    /// identical for every number of them.
    fn check<T: Entry>(products: Products, of: fn(f32) -> T, to: fn(T) -> f64) {
        let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 1999) as f32 * 1e-3 - 1.0;
        for (m, n, k) in [
            (5, 70, 33),
            (40, 200, 700),
            (13, 31, 15),
            (20, 40, 18),
            (64, 32, 16),
            (271, 33, 517),
            (256, 100, 1030),
            (300, 2100, 40),
            (257, 64, 2048),
        ] {
            for case in 0..16 {
                let [a_flip, b_flip, out_flip, add] = [1, 2, 4, 8].map(|bit| case & bit > 0);
                let a = filled(m * k, |i| of(value(i)));
                let b = filled(k * n, |i| of(value(i + 7)));
                let strides = |flip, rows, columns| match flip {
                    true => [1, rows],
                    false => [columns, 1],
                };
                let a = View::new(&a, [m, k], strides(a_flip, m, k));
                let b = View::new(&b, [k, n], strides(b_flip, k, n));
                let then = if add { Then::Add } else { Then::Replace };
                let at = |v: &View<T>, i: usize, j: usize| {
                    to(v.data[i * v.strides[0] + j * v.strides[1]])
                };
                let of_entry = |i: usize, j: usize| {
                    let terms = (0..k).map(|l| at(&a, i, l) * at(&b, l, j));
                    0.7 * terms.sum::<f64>()
                };
                let product = |by: Threads, threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    let mut out = filled(m * n, value);
                    pool.expect("threads").install(|| {
                        let to = ViewMut::new(&mut out, [m, n], strides(out_flip, m, n));
                        gemm(to, then, 0.7, a, b, by);
                    });
                    out
                };
                let all = product(Threads::All, 1);
                assert!(
                    all == product(Threads::All, 3),
                    "{products}: {m} x {k} x {n}, case {case}: three threads differ from one"
                );
                for out in [all, product(Threads::Caller, 1)] {
                    // Some entries of each tile.
                    let [row, column] = strides(out_flip, m, n);
                    for entry in (0..m * n).step_by(11) {
                        let (i, j) = (entry / n, entry % n);
                        let place = i * row + j * column;
                        let before = if add { f64::from(value(place)) } else { 0.0 };
                        let apart = (f64::from(out[place]) - before - of_entry(i, j)).abs();
                        assert!(
                            apart < 2e-6 * k as f64,
                            "{products}: {m} x {k} x {n}, case {case}, entry ({i}, {j}): differs by {apart}"
                        );
                    }
                }
            }
        }
    }

    /// Products of halves against products in f32 that are rounded, bit by bit.
    fn check_rounding_of_all_shapes<T: Entry + PartialEq>(products: Products, of: fn(f32) -> T) {
        for shape in [
            [97, 33, 16],
            [200, 700, 517],
            [128, 1030, 1030],
            [300, 64, 2048],
            [113, 40, 2100],
            [64, 96, 24],
            [3, 5, 7],
            [2, 4, 0],
        ] {
            for turned in [false, true] {
                check_rounding(products, shape, turned, of);
            }
        }
    }

    fn check_rounding<T: Entry + PartialEq>(
        products: Products,
        [m, n, k]: [usize; 3],
        turned: bool,
        of: fn(f32) -> T,
    ) {
        let value =
            |i: usize| of(((i.wrapping_mul(2_654_435_761) >> 7) % 1999) as f32 * 1e-3 - 1.0);
        let (a, b) = (filled(m * k, value), filled(k * n, value));
        let a = View::rows(&a, m, k);
        let b = match turned {
            true => View::rows(&b, n, k).transposed(),
            false => View::rows(&b, k, n),
        };
        let expected: Vec<T> = product(1.0, a, b).into_iter().map(of).collect();
        let found = T::product(a, b);
        assert!(
            found == expected,
            "{products}: {m} x {k} x {n}, turned: {turned}"
        );
    }

    fn filled<T>(length: usize, value: impl Fn(usize) -> T) -> Vec<T> {
        (0..length).map(value).collect()
    }

    #[test]
    #[should_panic = "view exceeds its data"]
    fn refuses_to_read_outside() {
        View::new(&A, [2, 3], [4, 1]);
    }

    #[test]
    #[should_panic = "entries overlap"]
    fn refuses_overlapping_entries() {
        ViewMut::new(&mut [0.0; 6], [2, 3], [1, 1]);
    }

    #[test]
    #[should_panic = "product of"]
    fn refuses_shapes_that_do_not_fit() {
        let a = View::rows(&A, 2, 3);
        gemm(
            ViewMut::rows(&mut [0.0; 4], 2, 2),
            Then::Replace,
            1.0,
            a,
            a,
            Threads::Caller,
        );
    }
}
