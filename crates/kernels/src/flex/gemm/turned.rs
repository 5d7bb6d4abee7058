//! Operands that are the transposes of small matrices.

use burn::tensor::bf16;

use super::{Entry, View};

/// Entry types of products whose operands are in a core's caches.
pub(crate) trait Turned: Entry {
    /// The transpose, as products read it fastest: where it is, or copied to the buffer.
    fn turned<'a>(x: View<'a, Self>, buffer: &'a mut Vec<Self>) -> View<'a, Self>;
}

impl Turned for f32 {
    /// A copy with contiguous rows.
    fn turned<'a>(x: View<'a>, buffer: &'a mut Vec<f32>) -> View<'a> {
        let [rows, columns] = x.shape;
        buffer.resize(rows * columns, 0.0);
        copy_transposed(x, buffer);
        View::rows(buffer, columns, rows)
    }
}

impl Turned for bf16 {
    /// In place: their products pack both operands.
    fn turned<'a>(x: View<'a, bf16>, _: &'a mut Vec<bf16>) -> View<'a, bf16> {
        x.transposed()
    }
}

/// Copies the columns of a matrix as the rows of another.
fn copy_transposed(x: View, to: &mut [f32]) {
    let [rows, columns] = x.shape;
    assert_eq!(to.len(), rows * columns, "as many entries");
    // The part that is copied in registers, 16 by 16.
    let in_registers = match can_transpose_in_registers(x) {
        true => [rows / 16 * 16, columns / 16 * 16],
        false => [0, 0],
    };
    #[cfg(target_arch = "x86_64")]
    for i in (0..in_registers[0]).step_by(16) {
        for j in (0..in_registers[1]).step_by(16) {
            // SAFETY: the processor has the instructions, and both blocks are inside their matrices.
            unsafe {
                let (from, to) = (x.at(i, j), to.as_mut_ptr().add(j * rows + i));
                super::packed::transpose(from, x.strides[0], to, rows);
            }
        }
    }
    for i in 0..rows {
        let first = match i < in_registers[0] {
            true => in_registers[1],
            false => 0,
        };
        for j in first..columns {
            to[j * rows + i] = x.data[i * x.strides[0] + j * x.strides[1]];
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn can_transpose_in_registers(x: View) -> bool {
    x.strides[1] == 1 && is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn can_transpose_in_registers(_: View) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        for [rows, columns, stride] in [
            [1, 1, 1],
            [16, 16, 20],
            [40, 33, 33],
            [64, 128, 256],
            [7, 80, 81],
        ] {
            let x: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut buffer = Vec::new();
            let turned = f32::turned(View::new(&x, [rows, columns], [stride, 1]), &mut buffer);
            assert_eq!(turned.shape, [columns, rows]);
            for (j, row) in buffer.chunks_exact(rows).enumerate() {
                let column = (0..rows).map(|i| x[i * stride + j]);
                assert!(
                    row.iter().copied().eq(column),
                    "column {j} of {rows} x {columns}"
                );
            }
        }
    }
}
