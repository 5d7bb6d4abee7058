//! Files that compressed-tensors wrote (`benches/peers/compressed_tensors_files.py`), and damaged ones.

mod data;

use data::values;
use half::f16;
use iiet_compress::{
    Activations, CompressError, PackedMatrix, PackedView, QuantizationConfig, Range, ScaleType,
    Scheme, StoredMatrix, StoredTensor, round,
};
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("data/pack_quantized.safetensors");
const CONFIG: &str = include_str!("data/quantization_config.json");

const CASES: [(&str, u64, u64, bool); 7] = [
    ("b4g32s", 4, 32, true),
    ("b4g128s", 4, 128, true),
    ("b4g64a", 4, 64, false),
    ("b4g32a", 4, 32, false),
    ("b8g64s", 8, 64, true),
    ("b8g128a", 8, 128, false),
    ("b8g32a", 8, 32, false),
];

fn f32s(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.as_chunks()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

/// The tensors of a case, given to `f` as they lie in the file.
fn with_stored<R>(file: &SafeTensors, case: &str, f: impl FnOnce(StoredMatrix) -> R) -> R {
    let tensor = |name: &str| file.tensor(&format!("{case}.weight_{name}"));
    let [packed, scale, shape] = ["packed", "scale", "shape"].map(|name| tensor(name).unwrap());
    let zero_point = tensor("zero_point").ok();
    fn stored<'a>(view: &'a safetensors::tensor::TensorView) -> StoredTensor<'a> {
        StoredTensor {
            shape: view.shape(),
            bytes: view.data(),
        }
    }
    f(StoredMatrix {
        packed: stored(&packed),
        scale: stored(&scale),
        scale_type: ScaleType::F16,
        zero_point: zero_point.as_ref().map(stored),
        shape: stored(&shape),
    })
}

#[test]
fn files_of_compressed_tensors_are_read_and_written_alike() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    for (case, bits, group, symmetric) in CASES {
        let scheme = Scheme::new(bits, group, symmetric).unwrap();
        with_stored(&file, case, |stored| {
            let matrix = stored.read(scheme).unwrap();
            let view = matrix.view();
            assert_eq!(
                values(&view),
                f32s(&file, &format!("{case}.unpacked")),
                "{case}"
            );

            let (shape, bytes) = view.weight_packed();
            assert_eq!(
                (&shape[..], bytes),
                (stored.packed.shape, stored.packed.bytes)
            );
            let (shape, bytes) = view.weight_scale();
            assert_eq!(
                (&shape[..], &bytes[..]),
                (stored.scale.shape, stored.scale.bytes)
            );
            assert_eq!(view.weight_shape(), stored.shape.bytes);
            match (view.weight_zero_point(), stored.zero_point) {
                (None, None) => {}
                (Some((shape, bytes)), Some(stored)) => {
                    assert_eq!((&shape[..], &bytes[..]), (stored.shape, stored.bytes));
                }
                _ => panic!("{case}: zero points"),
            }
        });
    }
}

#[test]
fn rounding_is_that_of_compressed_tensors() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    for (case, bits, group, symmetric) in CASES {
        let scheme = Scheme::new(bits, group, symmetric).unwrap();
        let expected = with_stored(&file, case, |stored| stored.read(scheme).unwrap());
        let (d_out, d_in) = (expected.view().d_out(), expected.view().d_in());
        let weights = f32s(&file, &format!("{case}.weight"));
        let found = round(&weights, d_out, d_in, scheme, Range::MinMax).unwrap();
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn configurations_of_compressed_tensors_are_read_and_written_alike() {
    let configs: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    for (case, scheme) in [
        ("b4g128s", Scheme::new(4, 128, true)),
        ("b8g32a", Scheme::new(8, 32, false)),
    ] {
        let config = QuantizationConfig::from_json(&configs[case]).unwrap();
        let expected = QuantizationConfig {
            scheme: scheme.unwrap(),
            activations: Activations::F32,
            activation_order: false,
            embeddings: false,
            ignore: vec!["lm_head".into()],
        };
        assert_eq!(config, expected);
        assert_eq!(config.to_json(), configs[case]);
    }
}

#[test]
fn tensors_that_do_not_fit_are_rejected() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let message = |change: &dyn Fn(&mut StoredMatrix), scheme: Scheme| {
        with_stored(&file, "b4g32a", |mut stored| {
            change(&mut stored);
            stored.read(scheme).unwrap_err().to_string()
        })
    };
    let scheme = Scheme::new(4, 32, false).unwrap();
    assert_eq!(
        message(&|s| s.zero_point = None, scheme),
        "weight_zero_point: absent, expected present for symmetric: false"
    );
    assert_eq!(
        message(&|s| s.packed.shape = &[9, 16], scheme),
        "weight_packed: shape [9, 16], expected [9, 8]"
    );
    assert_eq!(
        message(&|s| s.packed.bytes = &s.packed.bytes[1..], scheme),
        "weight_packed: 287 bytes, expected 288"
    );
    assert_eq!(
        message(&|s| s.shape.bytes = &[255; 16], scheme),
        "weight_shape 0: -1, allowed is a positive number"
    );
    assert_eq!(
        message(&|_| (), Scheme::new(8, 32, false).unwrap()),
        "weight_packed: shape [9, 8], expected [9, 16]"
    );
    assert_eq!(
        message(&|_| (), Scheme::new(4, 128, false).unwrap()),
        "an input width of 64 is not a multiple of the group size, 128"
    );
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let bits = prop_oneof![Just(4), Just(8)];
    let group = prop_oneof![Just(32), Just(64), Just(128)];
    (bits, group, any::<bool>()).prop_map(|(b, g, s)| Scheme::new(b, g, s).unwrap())
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..300, Just(usize::MAX), Just(1 << 40), Just(1 << 63)]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        scheme in schemes(),
        d_out in 1_usize..12,
        groups in 1_usize..4,
        seed in vec(any::<u8>(), 64),
    ) {
        let d_in = groups * scheme.group();
        let byte = |i: usize| seed[i % 64].wrapping_add((i / 64) as u8) & scheme.bits().max_code();
        let codes: Vec<u8> = (0..d_out * d_in).map(byte).collect();
        let scales = (0..d_out * groups).map(|i| f16::from_f32(byte(i).into())).collect();
        let zeros: Vec<u8> = (0..d_out * groups).map(|i| byte(i + 7)).collect();
        let zeros = if scheme.symmetric() { vec![] } else { zeros };
        let matrix = PackedMatrix::pack(scheme, d_out, d_in, &codes, scales, zeros).unwrap();
        let view = matrix.view();
        prop_assert_eq!(view.unpack(), codes);
        let (packed, scale) = (view.weight_packed(), view.weight_scale());
        let zero = view.weight_zero_point();
        let read = StoredMatrix {
            packed: StoredTensor { shape: &packed.0, bytes: packed.1 },
            scale: StoredTensor { shape: &scale.0, bytes: &scale.1 },
            scale_type: ScaleType::F16,
            zero_point: zero.as_ref().map(|(shape, bytes)| StoredTensor { shape, bytes }),
            shape: StoredTensor { shape: &[2], bytes: &view.weight_shape() },
        }
        .read(scheme);
        prop_assert_eq!(read, Ok(matrix));
    }

    #[test]
    fn arbitrary_tensors_do_not_panic(
        scheme in schemes(),
        shapes in vec(vec(sizes(), 0..4), 4),
        bytes in vec(vec(any::<u8>(), 0..600), 4),
        dimensions in [any::<u8>(), any::<u8>()],
        as_dimensions in any::<bool>(),
        scale_type in prop_oneof![Just(ScaleType::F16), Just(ScaleType::Bf16), Just(ScaleType::F32)],
        with_zeros in any::<bool>(),
    ) {
        let mut bytes = bytes;
        let mut shapes = shapes;
        if as_dimensions {
            // Plausible dimensions, so that the later checks are reached.
            bytes[3] = dimensions.iter().flat_map(|&d| i64::from(d).to_le_bytes()).collect();
            shapes[3] = vec![2];
        }
        let stored = |i: usize| StoredTensor { shape: &shapes[i], bytes: &bytes[i] };
        let _ = StoredMatrix {
            packed: stored(0),
            scale: stored(1),
            scale_type,
            zero_point: with_zeros.then(|| stored(2)),
            shape: stored(3),
        }
        .read(scheme);
    }

    #[test]
    fn arbitrary_parts_do_not_panic(
        scheme in schemes(),
        d_out in sizes(),
        d_in in sizes(),
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let scales = [f16::ONE; 3];
        let view: Result<_, CompressError> =
            PackedView::new(scheme, d_out, d_in, &bytes, &scales, &bytes[..bytes.len().min(3)]);
        if let Ok(view) = view {
            view.unpack();
        }
    }

    #[test]
    fn arbitrary_configurations_do_not_panic(
        key in "[a-z_]{1,12}",
        pointer in 0_usize..12,
        replacement in prop_oneof![Just("null"), Just("-1"), Just("[]"), Just("{}"), Just("\"x\""), Just("1e99")],
    ) {
        let mut value: serde_json::Value = serde_json::from_str::<serde_json::Value>(CONFIG).unwrap()["b4g128s"].take();
        let weights = "/config_groups/group_0/weights";
        let paths = ["", "/config_groups", "/config_groups/group_0", weights, "/ignore", "/format"];
        let replacement: serde_json::Value = serde_json::from_str(replacement).unwrap();
        match paths.get(pointer) {
            Some(path) => *value.pointer_mut(path).unwrap() = replacement,
            None => value[key] = replacement,
        }
        let _ = QuantizationConfig::from_json(&value);
    }
}
