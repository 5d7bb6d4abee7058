//! Cholesky factors and inverses of triangular matrices, by blocks.
//!
//! Of a symmetric positive definite H this crate needs the upper triangular U with H^-1 = U^T U (GPTQ, step 4 of
//! section 3.3). With J, which reverses the order of rows, J H J = L L^T gives H = (J L J) (J L J)^T, so U is the
//! inverse of the upper triangular J L J, and U = J L^-1 J: one factorisation and one triangular inverse instead of
//! two factorisations and a full inverse. J A J is the row-major buffer of A backwards.

use rayon::prelude::*;

use crate::matrix::{Then, View, product};

/// Rows of a panel: its triangle is solved without blocks.
const PANEL: usize = 64;
/// Rows of the remaining matrix, or columns of the inverse, that are computed at once.
const STRIP: usize = 512;

/// A pivot that is not positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NotPositive {
    /// Its row.
    pub(crate) row: usize,
    /// Its value before the root.
    pub(crate) pivot: f64,
}

/// U with `H^-1 = U^T U`, for `h`, `[n, n]`, of which only the upper triangle is read. Below U's diagonal are zeros.
pub(crate) fn inverse_factor(mut h: Vec<f64>, n: usize) -> Result<Vec<f64>, NotPositive> {
    h.reverse();
    cholesky(&mut h, n).map_err(|e| NotPositive {
        row: n - 1 - e.row,
        ..e
    })?;
    let mut inverse = invert_lower(&h, n);
    inverse.reverse();
    Ok(inverse)
}

/// Replaces the lower triangle of `a`, `[n, n]`, by L with `L L^T = A`. The rest is neither read nor of use after.
fn cholesky(a: &mut [f64], n: usize) -> Result<(), NotPositive> {
    for from in (0..n).step_by(PANEL) {
        let to = (from + PANEL).min(n);
        let width = to - from;
        let mut triangle = block(a, n, from..to, from..to);
        factor_triangle(&mut triangle, width).map_err(|e| NotPositive {
            row: from + e.row,
            ..e
        })?;
        for (row, l) in triangle.chunks_exact(width).enumerate() {
            a[(from + row) * n + from..][..width].copy_from_slice(l);
        }
        // X L^T = A, a row of X at a time.
        a[to * n..].par_chunks_exact_mut(n).for_each(|row| {
            let x = &mut row[from..to];
            for i in 0..width {
                let l = &triangle[i * width..][..=i];
                x[i] = (x[i] - dot(&x[..i], &l[..i])) / l[i];
            }
        });
        // A -= X X^T, on and below the diagonal.
        let panel = block(a, n, to..n, from..to);
        for start in (to..n).step_by(STRIP) {
            let end = (start + STRIP).min(n);
            let strip = &panel[(start - to) * width..];
            let strip = View::new(strip, [end - start, width], width);
            let others = View::new(&panel, [end - to, width], width);
            let out = &mut a[start * n + to..];
            product(out, n, Then::Subtract, strip, others.transposed());
        }
    }
    Ok(())
}

fn block(
    a: &[f64],
    n: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> Vec<f64> {
    rows.flat_map(|row| &a[row * n..][columns.clone()])
        .copied()
        .collect()
}

/// The factor of a small matrix, whose part above the diagonal becomes zero.
fn factor_triangle(a: &mut [f64], n: usize) -> Result<(), NotPositive> {
    for i in 0..n {
        let (before, rest) = a.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let other = &before[j * n..][..=j];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // Also for NaN.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(NotPositive { row: i, pivot });
        }
        row[i] = pivot.sqrt();
        row[i + 1..].fill(0.0);
    }
    Ok(())
}

/// The inverse of a lower triangular matrix, `[n, n]`, of which only the lower triangle is read.
fn invert_lower(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    let mut sums = vec![0.0; PANEL * n];
    for from in (0..n).step_by(PANEL) {
        let to = (from + PANEL).min(n);
        let width = to - from;
        let triangle = invert_triangle(&block(l, n, from..to, from..to), width);
        let (above, rows) = inverse.split_at_mut(from * n);
        // The columns before: -T^-1 (L X), with X the inverse so far, whose columns start at the diagonal.
        for start in (0..from).step_by(STRIP) {
            let end = (start + STRIP).min(from);
            let left = View::new(&l[from * n + start..], [width, from - start], n);
            let columns = View::new(&above[start * n + start..], [from - start, end - start], n);
            product(&mut sums[start..], n, Then::Replace, left, columns);
        }
        let corner = View::new(&triangle, [width, width], width);
        product(
            rows,
            n,
            Then::Subtract,
            corner,
            View::new(&sums, [width, from], n),
        );
        for (row, t) in triangle.chunks_exact(width).enumerate() {
            rows[row * n + from..][..width].copy_from_slice(t);
        }
    }
    inverse
}

fn invert_triangle(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        let pivot = l[i * n + i];
        for j in 0..i {
            let sum: f64 = (j..i).map(|k| l[i * n + k] * inverse[k * n + j]).sum();
            inverse[i * n + j] = -sum / pivot;
        }
        inverse[i * n + i] = 1.0 / pivot;
    }
    inverse
}

/// With eight independent sums, which the compiler can keep in vector registers.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for l in 0..8 {
            sums[l] += a[l] * b[l];
        }
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random;

    #[test]
    fn the_factor_of_a_small_matrix_is_that_computed_by_hand() {
        // H = R R^T with R = [[1, 2], [0, 2]], whose inverse is [[1, -1], [0, 1/2]].
        let h = vec![5.0, 4.0, f64::NAN, 4.0];
        assert_eq!(inverse_factor(h, 2).unwrap(), [1.0, -1.0, 0.0, 0.5]);
    }

    #[test]
    fn the_factor_inverts_matrices_of_several_blocks() {
        for n in [1, 63, 64, 65, 150, 600] {
            let x = random(n as u64, 2 * n * n);
            let x: Vec<f64> = x.into_iter().map(f64::from).collect();
            let x = View::new(&x, [2 * n, n], n);
            let mut h = vec![0.0; n * n];
            product(&mut h, n, Then::Replace, x.transposed(), x);
            for i in 0..n {
                h[i * n + i] += 0.1;
            }
            let u = inverse_factor(h.clone(), n).unwrap();
            // U H U^T = I.
            let (mut half, mut whole) = (vec![0.0; n * n], vec![0.0; n * n]);
            let u_view = View::new(&u, [n, n], n);
            product(
                &mut half,
                n,
                Then::Replace,
                u_view,
                View::new(&h, [n, n], n),
            );
            let half = View::new(&half, [n, n], n);
            product(&mut whole, n, Then::Replace, half, u_view.transposed());
            for i in 0..n {
                for j in 0..n {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    let found: f64 = whole[i * n + j];
                    assert!((found - expected).abs() < 1e-9, "{n}: {i} {j} {found}");
                    assert!(j >= i || u[i * n + j] == 0.0);
                }
            }
        }
    }

    #[test]
    fn a_pivot_that_is_not_positive_is_named() {
        let mut h = vec![0.0; 100 * 100];
        for i in 0..100 {
            h[i * 100 + i] = if i == 7 { -1.0 } else { 1.0 };
        }
        let error = inverse_factor(h, 100).unwrap_err();
        assert_eq!(
            error,
            NotPositive {
                row: 7,
                pivot: -1.0
            }
        );
    }
}
