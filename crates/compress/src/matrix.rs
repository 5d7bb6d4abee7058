//! Products of row-major matrices, with the gemm crate.

/// A matrix in a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    data: &'a [T],
    shape: [usize; 2],
    /// Entries from a row to the next, and from a column to the next.
    strides: [usize; 2],
}

impl<'a, T> View<'a, T> {
    /// The matrix of this shape that starts at the slice's start, with rows `stride` entries apart.
    ///
    /// # Panics
    ///
    /// When the slice is too short.
    pub(crate) fn new(data: &'a [T], shape: [usize; 2], stride: usize) -> Self {
        assert!(
            fits(data.len(), shape, stride),
            "invariant: inside the slice"
        );
        Self {
            data,
            shape,
            strides: [stride, 1],
        }
    }

    pub(crate) fn transposed(self) -> Self {
        let [rows, columns] = self.shape;
        let [row, column] = self.strides;
        Self {
            shape: [columns, rows],
            strides: [column, row],
            ..self
        }
    }
}

fn fits(len: usize, [rows, columns]: [usize; 2], stride: usize) -> bool {
    rows == 0 || columns == 0 || (stride >= columns && (rows - 1) * stride + columns <= len)
}

/// What happens to the destination's entries.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Replace,
    Subtract,
}

/// `out = a b` or `out -= a b`, on all threads. The rows of `out` are `stride` entries apart.
///
/// # Panics
///
/// When the shapes do not match or `out` is too short.
pub(crate) fn product<T: Real>(
    out: &mut [T],
    stride: usize,
    then: Then,
    a: View<'_, T>,
    b: View<'_, T>,
) {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert_eq!(k, inner, "invariant: matching shapes");
    assert!(
        fits(out.len(), [m, n], stride),
        "invariant: inside the slice"
    );
    if m == 0 || n == 0 {
        return;
    }
    let (read, scale) = match then {
        Then::Replace => (false, T::ONE),
        Then::Subtract => (true, T::MINUS_ONE),
    };
    let s = |stride: usize| stride as isize;
    // SAFETY: `gemm` reads a and b, and reads and writes `out`, as matrices of these shapes and strides, which the
    // checks here and in `View::new` found to lie inside their slices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            s(stride),
            read,
            a.data.as_ptr(),
            s(a.strides[1]),
            s(a.strides[0]),
            b.data.as_ptr(),
            s(b.strides[1]),
            s(b.strides[0]),
            T::ONE,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

/// f32 and f64.
pub(crate) trait Real: Copy + 'static {
    const ONE: Self;
    const MINUS_ONE: Self;
}

impl Real for f32 {
    const ONE: Self = 1.0;
    const MINUS_ONE: Self = -1.0;
}

impl Real for f64 {
    const ONE: Self = 1.0;
    const MINUS_ONE: Self = -1.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_replace_and_subtract() {
        let a = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let a = View::new(&a, [2, 3], 3);
        // [[1 2 3], [4 5 6]] times its transpose.
        let mut out = [1.0; 6];
        product(&mut out, 3, Then::Replace, a, a.transposed());
        assert_eq!(out, [14.0, 32.0, 1.0, 32.0, 77.0, 1.0]);
        product(&mut out, 3, Then::Subtract, a, a.transposed());
        assert_eq!(out, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }
}
