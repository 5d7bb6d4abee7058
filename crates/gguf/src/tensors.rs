//! The types of tensors, and where each tensor of a file is.

use std::fmt;

use crate::GgufError;

/// The most dimensions of a tensor.
pub(crate) const MAX_DIMS: u32 = 4;
/// The longest name of a tensor in bytes: ggml's 64 with the zero at the end.
pub(crate) const MAX_NAME: u64 = 63;

/// The types of tensors that are read. All but the last two are also written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Blocks of 32 8-bit integers with one scale.
    Q8_0,
    /// Blocks of 32 4-bit integers with one scale.
    Q4_0,
    /// Blocks of 256 4-bit integers in eight groups, each with a scale and a minimum.
    Q4K,
    /// Blocks of 256 6-bit integers in sixteen groups, each with a scale.
    Q6K,
}

/// Types of ggml that are known by name only, with their numbers.
const OTHERS: &[(u32, &str)] = &[
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl TensorType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4K,
        Self::Q6K,
    ];
    /// The names of all of them, for messages.
    pub(crate) const NAMES: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K";

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// The type with a name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// The number in files.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The type with a number.
    pub(crate) fn from_number(number: u32) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.number() == number).ok_or_else(|| {
            let name = OTHERS.iter().find(|(known, _)| *known == number);
            let found = match name {
                Some((_, name)) => (*name).to_owned(),
                None => format!("type {number}"),
            };
            format!("{found}; allowed: {}", Self::NAMES)
        })
    }

    /// Elements of a block; 1 where there are no blocks.
    pub fn block(self) -> u64 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor: its name, its type, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name.
    pub name: String,
    /// The sizes in the order of PyTorch and safetensors, rows last. The file has them in the opposite order.
    pub shape: Vec<u64>,
    /// The type.
    pub kind: TensorType,
    /// Where its bytes begin, counted from the beginning of the data.
    pub offset: u64,
    /// The number of its bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// A tensor that begins at byte 0.
    ///
    /// # Errors
    ///
    /// [`GgufError::RowWidth`] if its rows cannot be divided into blocks, and [`GgufError::Metadata`] for a
    /// name or a shape that GGUF does not have.
    pub fn new(
        name: impl Into<String>,
        shape: Vec<u64>,
        kind: TensorType,
    ) -> Result<Self, GgufError> {
        let name = name.into();
        let refuse = |found: String, allowed: String| {
            let start: String = name.chars().take(80).collect();
            Err(GgufError::metadata(
                format!("tensor {start}"),
                found,
                allowed,
            ))
        };
        if name.is_empty() || name.len() as u64 > MAX_NAME {
            let found = format!("a name of {} bytes", name.len());
            return refuse(found, format!("allowed: 1 to {MAX_NAME}"));
        }
        let allowed =
            format!("allowed: 1 to {MAX_DIMS} sizes of at least 1 whose product is below 2^63");
        let whole = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
        let elements = whole.filter(|n| (1..1 << 63).contains(n));
        let dims = (1..=MAX_DIMS as usize).contains(&shape.len());
        let (Some(elements), Some(width), true) = (elements, shape.last().copied(), dims) else {
            return refuse(format!("shape {shape:?}"), allowed);
        };
        if !width.is_multiple_of(kind.block()) {
            let (kind, block) = (kind.name(), kind.block());
            return Err(GgufError::RowWidth {
                name,
                width,
                kind,
                block,
            });
        }
        let Some(bytes) = (elements / kind.block())
            .checked_mul(kind.block_bytes())
            .filter(|bytes| *bytes < 1 << 63)
        else {
            return refuse(format!("shape {shape:?}"), allowed);
        };
        Ok(Self {
            name,
            shape,
            kind,
            offset: 0,
            bytes,
        })
    }

    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The byte after the last one, counted from the beginning of the data; `None` if it is above 2^64.
    pub(crate) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }
}

/// The next multiple of an alignment.
pub(crate) fn aligned(at: u64, alignment: u64) -> Option<u64> {
    at.checked_next_multiple_of(alignment)
}

/// Checks that tensors lie one after another, each at the first multiple of the alignment after the one before
/// it, as ggml requires; the data may end with padding. `found` is the number of bytes of the data.
pub(crate) fn check_layout(
    tensors: &[TensorInfo],
    alignment: u64,
    found: u64,
) -> Result<(), (String, String)> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    let mut next = 0;
    let mut before = "the beginning of the data";
    for tensor in order {
        let refuse = |reason| Err((tensor.name.clone(), reason));
        let offset = tensor.offset;
        if !offset.is_multiple_of(alignment) {
            return refuse(format!(
                "begins at byte {offset} of the data; allowed: multiples of {alignment}"
            ));
        }
        if offset != next {
            let fault = if offset < next {
                "overlaps"
            } else {
                "leaves a gap after"
            };
            return refuse(format!(
                "begins at byte {offset} of the data and {fault} {before}; allowed: {next}"
            ));
        }
        let end = tensor.end().filter(|end| *end <= found);
        let (Some(end), true) = (end, offset <= found) else {
            let bytes = tensor.bytes;
            return refuse(format!(
                "{bytes} bytes from byte {offset} of the data, which has {found}"
            ));
        };
        // The end is in the file, so this does not overflow.
        next = aligned(end, alignment).unwrap_or(u64::MAX);
        before = &tensor.name;
    }
    if found > next {
        let reason = format!("{found} bytes of data; allowed: {next}");
        return Err((before.to_owned(), format!("is the last of {reason}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, offset: u64) -> TensorInfo {
        let info = TensorInfo::new(name, vec![5], TensorType::F32).unwrap();
        TensorInfo { offset, ..info }
    }

    #[test]
    fn sizes_are_counted_in_blocks() {
        let info = |shape: &[u64], kind| TensorInfo::new("a", shape.to_vec(), kind);
        assert_eq!(info(&[2, 64], TensorType::Q8_0).unwrap().bytes, 4 * 34);
        assert_eq!(info(&[2, 64], TensorType::Q4_0).unwrap().bytes, 4 * 18);
        assert_eq!(info(&[1, 512], TensorType::Q4K).unwrap().bytes, 2 * 144);
        assert_eq!(info(&[256], TensorType::Q6K).unwrap().bytes, 210);
        let error = info(&[64, 48], TensorType::Q8_0).unwrap_err().to_string();
        assert!(
            error.starts_with("tensor a: rows of 48 elements; allowed for Q8_0: multiples of 32"),
            "{error}"
        );
    }

    #[test]
    fn shapes_that_overflow_are_errors() {
        for shape in [
            vec![],
            vec![0],
            vec![3, 0],
            vec![1; 5],
            vec![1 << 32, 1 << 32],
            vec![1 << 62],
            vec![u64::MAX],
        ] {
            let error = TensorInfo::new("a", shape.clone(), TensorType::F32);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("shape {shape:?}")), "{error}");
        }
        let error = TensorInfo::new("a".repeat(64), vec![1], TensorType::F32);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("64 bytes; allowed: 1 to 63")
        );
    }

    #[test]
    fn overlaps_gaps_and_missing_bytes_are_errors() {
        let check = |tensors: &[TensorInfo], found| check_layout(tensors, 32, found);
        assert_eq!(check(&[at("b", 32), at("a", 0)], 52), Ok(()));
        assert_eq!(check(&[at("a", 0), at("b", 32)], 64), Ok(()));
        for (tensors, found, name, expected) in [
            (
                vec![at("a", 0), at("b", 0)],
                64,
                "b",
                "overlaps a; allowed: 32",
            ),
            (
                vec![at("a", 0), at("b", 64)],
                96,
                "b",
                "leaves a gap after a; allowed: 32",
            ),
            (
                vec![at("a", 8)],
                96,
                "a",
                "byte 8 of the data; allowed: multiples of 32",
            ),
            (
                vec![at("a", 0)],
                19,
                "a",
                "20 bytes from byte 0 of the data, which has 19",
            ),
            (vec![at("a", 0)], 33, "a", "33 bytes of data; allowed: 32"),
        ] {
            let (found_name, reason) = check(&tensors, found).unwrap_err();
            assert_eq!(found_name, name);
            assert!(reason.contains(expected), "{reason}");
        }
        assert!(check(&[], 1).is_err());
    }

    #[test]
    fn types_have_names_and_numbers() {
        for kind in TensorType::ALL {
            assert_eq!(TensorType::from_number(kind.number()), Ok(kind));
            assert_eq!(TensorType::from_name(kind.name()), Some(kind));
            assert!(TensorType::NAMES.contains(kind.name()));
        }
        assert_eq!(TensorType::from_name("q8_0"), Some(TensorType::Q8_0));
        let error = TensorType::from_number(13).unwrap_err();
        assert!(error.starts_with("Q5_K; allowed: F32, "), "{error}");
        assert!(
            TensorType::from_number(99)
                .unwrap_err()
                .starts_with("type 99;")
        );
    }
}
