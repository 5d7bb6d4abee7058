//! Projections by a matrix of 8 or 4 bits, `y = x W^T` with `W[o,i] = s (q[o,i] - z)`.
//!
//! Weights that follow one another along the input share a scale s and a zero point z
//! ([`Scheme`]). On flex the products of few rows are computed from the codes as they are in memory, in one
//! pass; for more rows some rows of W at a time are widened, and multiplied as other matrices are.
//!
//! Inputs may be rounded to 8 bits before ([`Activations`]). Few rows are then products of integers, and more rows
//! those of the numbers that the integers stand for.
//!
//! The matrix is a constant. The gradient to x is Burn's, of the composed body; through rounded inputs there is none
//! of use.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Int, Shape, Tensor, TensorData, f16};
use iiet_compress::{Activations, CompressError, PackedMatrix, PackedView, Scheme};

use super::linear::with_width;
use super::rows::as_rows;
use crate::Precision;
use crate::precision::{rounded, widened};
use crate::route::{composed, operation, routed};

/// A matrix of 8 or 4 bits on a device, `[d_out, d_in]`.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// Words of 32 bits, `[d_out, d_in bits / 32]`; the code of the first input is in the lowest bits.
    codes: Tensor<2, Int>,
    /// `[d_out, d_in / group]`, in f16 where the device has it.
    scales: Tensor<2>,
    /// `[d_out, d_in / group]`; `[1, 1]` for symmetric groups.
    zeros: Tensor<2, Int>,
    #[module(skip)]
    scheme: Scheme,
    #[module(skip)]
    activations: Activations,
}

impl PackedWeight {
    /// The matrix on a device.
    pub fn new(matrix: &PackedView, device: &Device) -> Self {
        let (shape, bytes) = matrix.weight_packed();
        let (words, _) = bytes.as_chunks::<4>();
        let words: Vec<i32> = words.iter().map(|word| i32::from_le_bytes(*word)).collect();
        let codes = Tensor::from_data(
            TensorData::new::<i32, _>(words, shape),
            (device, DType::I32),
        );

        let groups = [matrix.d_out(), matrix.d_in() / matrix.scheme().group()];
        let scales = TensorData::new::<f16, _>(matrix.scales().to_vec(), groups);
        let dtype = match Precision::F16.works_on(device) {
            true => DType::F16,
            false => DType::F32,
        };
        let scales = Tensor::from_data(scales.convert_dtype(dtype), (device, dtype));

        let zeros = match matrix.scheme().symmetric() {
            true => TensorData::new::<u8, _>(vec![matrix.scheme().bits().middle()], [1, 1]),
            false => TensorData::new::<u8, _>(matrix.zeros().to_vec(), groups),
        };
        let dtype = match device.supports_dtype(DType::U8) {
            true => DType::U8,
            false => DType::I32,
        };
        let zeros = Tensor::from_data(zeros.convert_dtype(dtype), (device, dtype));
        Self {
            codes,
            scales,
            zeros,
            scheme: matrix.scheme(),
            activations: Activations::F32,
        }
    }

    /// The same matrix, whose products treat their inputs so.
    pub fn with_activations(self, activations: Activations) -> Self {
        Self {
            activations,
            ..self
        }
    }

    /// How products treat their inputs.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// How the matrix is quantised.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Output width.
    pub fn d_out(&self) -> usize {
        self.codes.dims()[0]
    }

    /// Input width.
    pub fn d_in(&self) -> usize {
        self.codes.dims()[1] * 32 / self.scheme.bits().count()
    }

    /// The matrix in host memory.
    ///
    /// # Errors
    ///
    /// [`CompressError`] if the device returned other values than it was given.
    pub fn to_matrix(&self) -> Result<PackedMatrix, CompressError> {
        let words = integers(&self.codes);
        let codes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let scales = self.scales.clone().cast(FloatDType::F32);
        let scales = scales.try_into_vec_as::<f32>();
        let scales = scales.expect("invariant: float tensors can be read as f32");
        let zeros = match self.scheme.symmetric() {
            true => Vec::new(),
            false => integers(&self.zeros)
                .iter()
                .map(|zero| *zero as u8)
                .collect(),
        };
        PackedMatrix::new(
            self.scheme,
            self.d_out(),
            self.d_in(),
            codes,
            scales.into_iter().map(f16::from_f32).collect(),
            zeros,
        )
    }

    /// Some rows of the matrix, widened: the lookup of an embedding.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `d_out`
    /// - output: `[batch, seq, d_in]`, in f32
    pub fn embedding(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let ids = ids.reshape([batch * seq]);
        let rows = Self {
            codes: self.codes.clone().select(0, ids.clone()),
            scales: self.scales.clone().select(0, ids.clone()),
            zeros: match self.scheme.symmetric() {
                true => self.zeros.clone(),
                false => self.zeros.clone().select(0, ids),
            },
            ..*self
        };
        rows.widened().reshape([batch, seq, self.d_in()])
    }

    /// W in f32, `[d_out, d_in]`.
    pub fn widened(&self) -> Tensor<2> {
        let (codes, scales, zeros) = self.clone().into_dispatch();
        Tensor::from_dispatch(values::<burn::backend::Dispatch>(
            codes,
            scales,
            zeros,
            self.scheme,
        ))
    }

    #[allow(clippy::type_complexity, reason = "the types of the parts")]
    fn into_dispatch(
        self,
    ) -> (
        burn::backend::DispatchTensor,
        burn::backend::DispatchTensor,
        burn::backend::DispatchTensor,
    ) {
        (
            self.codes.into_dispatch(),
            self.scales.into_dispatch(),
            self.zeros.into_dispatch(),
        )
    }
}

fn integers(tensor: &Tensor<2, Int>) -> Vec<i32> {
    let values = tensor.clone().try_into_vec_as::<i32>();
    values.expect("invariant: written as integers of 32 bits or fewer")
}

/// `x W^T` along the last axis.
///
/// # Shapes
///
/// - x: `[.., d_in]`
/// - weight: `[d_out, d_in]`
/// - output: `[.., d_out]`, of x's type
///
/// # Panics
///
/// If the length of x's last axis is not `d_in`.
pub fn packed_linear<const D: usize>(x: Tensor<D>, weight: &PackedWeight) -> Tensor<D> {
    assert_eq!(
        x.dims().last().copied(),
        Some(weight.d_in()),
        "packed_linear: x {:?} does not match a weight with {} inputs",
        x.dims(),
        weight.d_in()
    );
    let (scheme, activations) = (weight.scheme, weight.activations);
    let x = x.into_dispatch();
    let (codes, scales, zeros) = weight.clone().into_dispatch();
    Tensor::from_dispatch(routed!(
        PackedLinear::project_packed(x, codes, scales, zeros, scheme, activations),
        else forward
    ))
}

operation! {
    /// The projection over a backend's own tensors.
    pub trait PackedLinear: Backend {
        fn project_packed(
            x: FloatTensor<Self>,
            codes: IntTensor<Self>,
            scales: FloatTensor<Self>,
            zeros: IntTensor<Self>,
            scheme: Scheme,
            activations: Activations,
        ) -> FloatTensor<Self> {
            forward::<Self>(x, codes, scales, zeros, scheme, activations)
        }
    }
}

composed!(PackedLinear: NdArray, Cube);

impl<B: PackedLinear, C: CheckpointStrategy> PackedLinear for Autodiff<B, C> {}

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    codes: IntTensor<B>,
    scales: FloatTensor<B>,
    zeros: IntTensor<B>,
    scheme: Scheme,
    activations: Activations,
) -> FloatTensor<B> {
    let (dtype, d_out) = (x.dtype(), codes.shape()[0]);
    let shape = with_width(x.shape(), d_out);
    let weight = values::<B>(codes, scales, zeros, scheme);
    let mut x = as_rows::<B>(widened::<B>(x));
    if activations == Activations::Int8 {
        x = rounded_inputs::<B>(x, scheme.group());
    }
    let y = B::float_matmul(x, B::float_swap_dims(weight, 0, 1));
    rounded::<B>(B::float_reshape(y, shape), dtype)
}

/// `t u` for each group of inputs, with u the integers nearest to `x / t` and `t = max |x| / 127`; x is `[rows, d_in]`.
fn rounded_inputs<B: Backend>(x: FloatTensor<B>, group: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let [rows, d_in] = shape.dims();
    let x = B::float_reshape(x, Shape::from(vec![rows, d_in / group, group]));
    let largest = B::float_max_dim(B::float_abs(x.clone()), 2);
    // The inverse of a smaller scale would not be finite; a group of zeros stays one.
    let largest = B::float_clamp_min(largest, (127.0 * f32::MIN_POSITIVE).into());
    // Divided, as on flex: a product with the reciprocal could round to another integer.
    let (groups, device) = (largest.shape(), largest.device());
    let most = B::float_full(groups, 127.0.into(), &device, FloatDType::F32);
    let steps = B::float_div(most, largest.clone());
    let integers = B::float_round(B::float_mul(x, steps));
    let scales = B::float_div_scalar(largest, 127.0.into());
    B::float_reshape(B::float_mul(integers, scales), shape)
}

/// `s (q - z)` in f32, `[d_out, d_in]`.
fn values<B: Backend>(
    codes: IntTensor<B>,
    scales: FloatTensor<B>,
    zeros: IntTensor<B>,
    scheme: Scheme,
) -> FloatTensor<B> {
    let bits = scheme.bits().count();
    let [d_out, words] = codes.shape().dims();
    let in_a_word = 32 / bits;
    let d_in = words * in_a_word;
    let groups = d_in / scheme.group();
    let mask = i64::from(scheme.bits().max_code());
    let parts = (0..in_a_word).map(|k| {
        let shifted = B::bitwise_right_shift_scalar(codes.clone(), ((k * bits) as i64).into());
        let part = B::bitwise_and_scalar(shifted, mask.into());
        B::int_reshape(part, Shape::from(vec![d_out, words, 1]))
    });
    let q = B::int_into_float(B::int_cat(parts.collect(), 2), FloatDType::F32);
    let q = B::float_reshape(q, Shape::from(vec![d_out, groups, scheme.group()]));
    let [rows, of_row] = zeros.shape().dims();
    let z = B::int_into_float(zeros, FloatDType::F32);
    let z = B::float_reshape(z, Shape::from(vec![rows, of_row, 1]));
    let s = B::float_reshape(widened::<B>(scales), Shape::from(vec![d_out, groups, 1]));
    let w = B::float_mul(B::float_sub(q, z), s);
    B::float_reshape(w, Shape::from(vec![d_out, d_in]))
}
