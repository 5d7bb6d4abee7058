//! Values of matrices.

use iiet_compress::PackedView;

/// The values of a matrix, one by one.
pub fn values(view: &PackedView) -> Vec<f32> {
    let codes = view.unpack();
    let value = |(i, &code): (usize, &u8)| {
        let (row, column) = (i / view.d_in(), i % view.d_in());
        view.grid(row, column / view.scheme().group()).value(code)
    };
    codes.iter().enumerate().map(value).collect()
}
